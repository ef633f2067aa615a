"""Compares `qlnet features` with PyTorch's hooks, and `qlnet convert` with the checkpoint it came from.

    pip install torch torchvision numpy safetensors pillow
    cargo build --release
    python scripts/check_features.py                            qlnet-digits, which is built in
    python scripts/check_features.py --weights FILE --images DIR

Features: every file is opened with numpy.load or safetensors.numpy.load_file, and what it holds of each layer, pooled
and not, is compared with what a forward hook sees in the PyTorch class (reference/qlnet.py) on the same pixels, which
torchvision resizes and crops. Conversion: the class loads the file strictly, with the logits of the original.
The exit code is 1 if a value differs by more than 1e-5 of its layer's largest, or a conversion by anything.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from PIL import Image
from torchvision import transforms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "reference"))

from qlnet import QLNet, from_file, hardball, read_state_dict  # noqa: E402

LAYERS = ["stem", "layer1.0", "layer1", "layer2", "layer3.0", "layer3", "layer4", "act"]


def hooked(net, images):
    """The output of every step, NCHW, by hooks where the class has a module, else as its `trace` has it."""
    seen = {}
    handles = []
    for name, module in net.named_modules():
        if name.startswith("layer") and name.count(".") <= 1:
            keep = lambda _, __, output, name=name: seen.__setitem__(name, output)
            handles.append(module.register_forward_hook(keep))
    # The class goes through the blocks of a layer itself, so that a layer's own hook is not called.
    for name, output in net.trace(images):
        seen.setdefault(name, output)
    for handle in handles:
        handle.remove()
    for name in [f"layer{i + 1}" for i in range(net.layers)]:
        seen[name] = seen[f"{name}.{len(getattr(net, name)) - 1}"]
    assert torch.equal(seen["act"], hardball(seen[f"layer{net.layers}"]))
    return seen


def preprocess(net):
    """As src/weights/registry.rs has it, for photographs or digits."""
    resize, crop = (235, 224) if net.config.classes > 10 else (64, 64)
    return transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def read(file):
    """The rows of a file and the images they are of."""
    if file.suffix == ".npy":
        lines = file.with_suffix(".paths.jsonl").read_text().splitlines()
        return numpy.load(file), [json.loads(line)["image"] for line in lines]
    if file.suffix == ".safetensors":
        with safetensors.safe_open(file, framework="np") as opened:
            metadata = opened.metadata()
        return safetensors.numpy.load_file(file)["features"], json.loads(metadata["paths"])
    rows = list(csv.reader(file.open(newline="")))[1:]
    return numpy.array([row[1:] for row in rows], dtype=numpy.float32), [row[0] for row in rows]


def run(args, *arguments):
    subprocess.run([str(part) for part in [args.qlnet, *arguments]], check=True, stderr=subprocess.PIPE)


def check_features(args, net, folder):
    model = ["--weights", args.weights] if args.weights else ["--model", "qlnet-digits"]
    worst, images, expected = {}, None, {}
    for layer in LAYERS:
        for pooled in [True, False]:
            endings = [".npy", ".safetensors", ".csv"] if pooled else [".npy", ".safetensors"]
            for ending in endings:
                file = folder / f"features{ending}"
                options = ["--layer", layer, *([] if pooled else ["--unpooled"])]
                run(args, "features", args.images, "--no-exif", *model, *options, "--out", file)
                found, paths = read(file)
                if images is None:
                    images = paths
                    pixels = [preprocess(net)(Image.open(path).convert("RGB")) for path in images]
                    with torch.no_grad():
                        expected = hooked(net, torch.stack(pixels))
                assert paths == images and found.dtype == numpy.float32
                wanted = expected[layer].mean(dim=(2, 3)) if pooled else expected[layer]
                assert found.shape == tuple(wanted.shape), (found.shape, wanted.shape)
                difference = numpy.abs(found - wanted.numpy()).max() / wanted.abs().max().item()
                worst[layer] = max(worst.get(layer, 0.0), float(difference))
        print(f"{layer:9} {str(tuple(expected[layer].shape)):20} differs by {worst[layer]:.1e} of its largest value")
    return max(worst.values()) < 1e-5


def check_conversion(args, net, folder):
    original = args.weights or ROOT / "models" / "qlnet-digits.safetensors"
    state, file = read_state_dict(original), folder / "converted.safetensors"
    run(args, "convert", original, file)
    converted = safetensors.torch.load_file(file)
    assert converted.keys() == state.keys(), converted.keys() ^ state.keys()
    same = all(torch.equal(converted[name], state[name]) and converted[name].dtype == state[name].dtype for name in state)
    again = QLNet(net.config).eval()
    print(again.load_state_dict(converted, strict=True), f"{len(converted)} tensors, {file.stat().st_size:,} bytes")

    torch.manual_seed(1)
    size = 224 if net.config.classes > 10 else 64
    images = torch.randn(4, 3, size, size)
    with torch.no_grad():
        expected = net(images)
        same &= torch.equal(again(images), expected)
        print("the same logits to the bit" if same else "OTHER TENSORS OR LOGITS")
        for dtype in ["f16", "bf16"]:
            run(args, "convert", original, file, "--dtype", dtype)
            again.load_state_dict(safetensors.torch.load_file(file), strict=True)
            change = (again(images) - expected).abs().max() / expected.abs().max()
            print(f"{dtype}: {file.stat().st_size:,} bytes, logits differ by {change:.1e} of the largest")
        run(args, "convert", original, file, "--folded")
        run(args, "convert", file, folder / "back.safetensors")
        again.load_state_dict(safetensors.torch.load_file(folder / "back.safetensors"), strict=True)
        change = ((again(images) - expected).abs().max() / expected.abs().max()).item()
        print(f"folded and back: logits differ by {change:.1e} of the largest")
    return same and change < 2e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=Path, default=ROOT / "samples" / "digits")
    parser.add_argument("--qlnet", type=Path, default=ROOT / "target" / "release" / "qlnet")
    args = parser.parse_args()
    net = from_file(args.weights or ROOT / "models" / "qlnet-digits.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        passed = [check_features(args, net, Path(folder)), check_conversion(args, net, Path(folder))]
    print("as in PyTorch" if all(passed) else "NOT AS IN PYTORCH")
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
