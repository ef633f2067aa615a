"""Compares the maps of `qlnet classify --explain` with PyTorch's, and measures how wide a place sees.

    python scripts/check_explain.py --qlnet target/release/qlnet --weights qlnet-50-v0.pth.tar IMAGE...
    python scripts/check_explain.py --qlnet target/release/qlnet --weights models/qlnet-digits.safetensors \\
        --model qlnet-digits samples/digits/*.png

PyTorch computes the last activation of the very pixels that the program decodes (PNG only, of the crop's size, so
that nothing is resized), and from it `act @ fc.weight.T + fc.bias` at every place, in float64. How wide a place sees
is the squared gradient of random directions of its activation with respect to the pixels.

Needs torch, numpy and Pillow; run from the repository's root.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "reference"))
import qlnet as reference  # noqa: E402

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def crops(images, side, folder):
    """The centre squares of images, at that side, as PNG files that need no preprocessing."""
    for number, image in enumerate(images):
        image = Image.open(image).convert("RGB")
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        path = Path(folder) / f"{number:03}.png"
        image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.BICUBIC).save(path)
        yield path


def to_input(path):
    pixels = np.asarray(Image.open(path), dtype=np.float64) / 255
    return torch.tensor(((pixels - MEAN) / STD).transpose(2, 0, 1)[None])


def activation(net, x):
    return next(y for name, y in net.trace(x) if name == "act")


def compare(arguments, net, paths, side):
    """The largest difference of a map's number, relative to the map's largest, over all classes."""
    command = [arguments.qlnet, "classify", "--json", "-k", str(net.fc.out_features), "--dtype", arguments.dtype]
    command += ["--weights", arguments.weights, "--resize", str(side), "--crop", str(side)]
    command += ["--model", arguments.model] if arguments.model else []
    with tempfile.TemporaryDirectory() as pictures:
        lines = subprocess.run([*command, "--explain", pictures, *paths], check=True, capture_output=True).stdout
    worst = off = 0.0
    for path, line in zip(paths, lines.splitlines(), strict=True):
        with torch.no_grad():
            act = activation(net, to_input(path))
            expected = torch.einsum("kc,chw->khw", net.fc.weight, act[0]) + net.fc.bias[:, None, None]
            logits = net(to_input(path))[0]
        for prediction in json.loads(line)["predictions"]:
            found = torch.tensor(prediction["map"], dtype=torch.float64)
            wanted = expected[prediction["index"]]
            largest = wanted.abs().max().item()
            worst = max(worst, (found - wanted).abs().max().item() / largest)
            off = max(off, abs(found.mean().item() - logits[prediction["index"]].item()) / largest)
    print(f"{len(paths)} images, {net.fc.out_features} classes, {len(found)}x{len(found[0])} places, {arguments.dtype}")
    print(f"  largest difference from PyTorch in float64, of a map's largest number: {worst:.1e}")
    print(f"  largest difference of a map's mean from PyTorch's logit, of the same:  {off:.1e}")


def fields(net, paths, side):
    """Where what a place minds is: how much in its part of the picture, and around which pixel."""
    inside, offset, spread = [], [], []
    rng = torch.Generator().manual_seed(0)
    for path in paths[:6]:
        x = to_input(path).requires_grad_()
        act = activation(net, x)
        _, channels, height, width = act.shape
        ys, xs = np.mgrid[:side, :side]
        for row in range(height):
            for column in range(width):
                direction = torch.randn(channels, generator=rng, dtype=torch.float64)
                (gradient,) = torch.autograd.grad((act[0, :, row, column] * direction).sum(), x, retain_graph=True)
                weight = gradient[0].square().sum(0).numpy()
                weight /= weight.sum()
                part = [slice(i * side // n, (i + 1) * side // n) for i, n in ((row, height), (column, width))]
                inside.append(weight[tuple(part)].sum())
                centre = (weight * ys).sum(), (weight * xs).sum()
                offset.append((centre[0] - 32 * row, centre[1] - 32 * column))
                spread.append(np.sqrt((weight * ((ys - centre[0]) ** 2 + (xs - centre[1]) ** 2)).sum() / 2))
    down, right = np.mean(offset, axis=0)
    print(f"  of the squared gradient {100 * np.mean(inside):.0f} % lies in a place's own part of the picture;")
    print(f"  its centre is {down:+.1f} pixels down and {right:+.1f} right of pixel 32 i, 32 j, its spread {np.mean(spread):.1f} pixels")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qlnet", default="target/release/qlnet")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", help="the model whose labels and crop the weights share")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--side", type=int, help="pixels of the crop; 64 for the digits, else 224")
    parser.add_argument("images", nargs="+")
    arguments = parser.parse_args()
    side = arguments.side or (64 if arguments.model == "qlnet-digits" else 224)
    net = reference.from_file(arguments.weights).double()
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(path) for path in crops(arguments.images, side, folder)]
        compare(arguments, net, paths, side)
        fields(net, paths, side)


if __name__ == "__main__":
    main()
