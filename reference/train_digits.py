"""Trains qlnet-digits, the model that is embedded in the binary, and saves it as float16 safetensors.

    pip install torch numpy pillow scikit-learn safetensors
    python reference/train_digits.py          writes models/qlnet-digits.safetensors and samples/digits/

Data: the UCI handwritten digits as scikit-learn's `load_digits` gives them (1,797 images of 8x8
pixels, CC BY 4.0). One image in five is held out, stratified by class, and used for nothing but the
accuracy that is printed at the end. About four minutes on two cores.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from qlnet import QLNET_DIGITS, QLNet

ROOT = Path(__file__).resolve().parent.parent
INPUT = 64
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
SAMPLES_PER_DIGIT = 1


def dataset():
    """8-bit images [n, 8, 8] and labels, and the indices of the training and held-out parts."""
    digits = load_digits()
    images = np.round(digits.images / 16 * 255).astype(np.uint8)
    train, held_out = train_test_split(
        np.arange(len(images)), test_size=0.2, random_state=0, stratify=digits.target
    )
    return images, digits.target, train, np.sort(held_out)


def enlarge(images, size=INPUT):
    """What the binary does with an 8x8 image: Pillow's bicubic resize to `size`, in 8 bits."""
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.BICUBIC)) for i in images])


def normalise(grey):
    """Grey in 0..1, [n, H, W], to the network's input [n, 3, H, W]."""
    return (grey[:, None].expand(-1, 3, -1, -1) - MEAN) / STD


def augment(grey, rng):
    """Random shift, scale, rotation and shear; sharper or softer strokes; half of them dark on light."""
    n = len(grey)

    def uniform(low, high):
        return torch.rand(n, generator=rng) * (high - low) + low

    angle, scale, shear = uniform(-0.25, 0.25), uniform(0.85, 1.35), uniform(-0.2, 0.2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [torch.stack([cos, shear - sin, uniform(-0.25, 0.25)], 1), torch.stack([sin, cos, uniform(-0.25, 0.25)], 1)], 1
    )
    grid = F.affine_grid(theta, (n, 1, INPUT, INPUT), align_corners=False)
    grey = F.grid_sample(grey[:, None], grid, align_corners=False)[:, 0]
    sharpness, threshold = uniform(2, 16).view(-1, 1, 1), uniform(0.3, 0.6).view(-1, 1, 1)
    sharp = torch.sigmoid(sharpness * (grey - threshold))
    grey = torch.where((uniform(0, 1) < 0.5).view(-1, 1, 1), sharp, grey)
    return torch.where((uniform(0, 1) < 0.5).view(-1, 1, 1), 1 - grey, grey)


def accuracy(net, images, labels):
    net.eval()
    with torch.no_grad():
        logits = torch.cat([net(normalise(part)) for part in images.split(128)])
    return (logits.argmax(1) == labels).sum().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    images, labels, train, held_out = dataset()
    grey = torch.tensor(enlarge(images)).float() / 255
    labels = torch.tensor(labels)

    net = QLNet(QLNET_DIGITS)
    batch, steps = 64, args.epochs * math.ceil(len(train) / 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(args.epochs):
        net.train()
        total = 0.0
        for part in torch.randperm(len(train), generator=rng).split(batch):
            index = torch.tensor(train)[part]
            loss = F.cross_entropy(net(normalise(augment(grey[index], rng))), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(part)
        print(f"epoch {epoch + 1:3}  loss {total / len(train):.4f}", flush=True)

    # Weights are stored in half precision, running statistics in full: they span more orders of magnitude.
    state = {
        name: value if "running" in name else value.half()
        for name, value in net.state_dict().items()
        if "num_batches" not in name
    }
    net.load_state_dict(state, strict=False)
    correct = accuracy(net, grey[held_out], labels[held_out])
    inverted = accuracy(net, 1 - grey[held_out], labels[held_out])
    print(f"held out: {correct} of {len(held_out)} right ({correct / len(held_out):.2%}), in float16 weights")
    print(f"held out, dark on light: {inverted} of {len(held_out)} right ({inverted / len(held_out):.2%})")

    file = ROOT / "models" / "qlnet-digits.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        file,
        metadata={
            "data": "UCI handwritten digits (scikit-learn load_digits), CC BY 4.0",
            "held_out": f"{correct} of {len(held_out)}",
        },
    )
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")

    folder = ROOT / "samples" / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        for index in [i for i in held_out if labels[i] == digit][:SAMPLES_PER_DIGIT]:
            Image.fromarray(enlarge(images[[index]], 128)[0]).save(folder / f"{digit}-{index}.png")


if __name__ == "__main__":
    main()
