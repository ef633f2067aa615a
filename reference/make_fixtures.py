"""Makes tests/fixtures: small QLNets in every form that checkpoints come in, and what PyTorch
computes with them.

    pip install torch numpy pillow safetensors
    python reference/make_fixtures.py

For each `NAME` there is a checkpoint and `NAME.expected.safetensors` with an `input` [2, 3, 40, 33],
the output of every step in NCHW, and the `logits`, computed in float64 from the weights as stored.

`pillow/` holds images and their sizes as Pillow resizes them; `decode/` images in many formats and
what Pillow's `convert("RGB")` makes of each.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from qlnet import Config, QLNet

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
SMALL = dict(stem=4, widths=(4, 6, 8, 10), depths=(2, 2, 1, 1), wide_up_to=6, classes=7)


def trained_looking(config, seed):
    """A network whose parameters and batch-norm statistics all differ from their initial values,
    and in which some pixels lie outside their hardball and some inside."""
    torch.manual_seed(seed)
    net = QLNet(config)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "bn" in name:
                p.add_(torch.randn_like(p) * 0.3)
        net.train()
        for _ in range(20):
            net(torch.randn(8, 3, 40, 33))
    return net.eval()


def expect(name, net, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 40, 33)
    net = net.double()
    with torch.no_grad():
        steps = {step: y.float().contiguous() for step, y in net.trace(x.double())}
    assert all(y.isfinite().all() for y in steps.values())
    save_file({"input": x, **steps}, OUT / f"{name}.expected.safetensors")


def timm_training_state(net):
    """What timm's train.py saves: the weights are one entry among several."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    return {
        "epoch": 3,
        "arch": "resnet50",
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(model="resnet50", lr=0.1, opt_betas=None, ratio=[0.75, 4 / 3], data_dir=Path("data")),
        "amp_scaler": {"scale": 65536.0, "_growth_tracker": 1021},
        "metric": 60.25,
    }


def picture(width, height, seed):
    """Smooth colours, hard edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([128 + 120 * np.sin(x / 5 + c) * np.cos(y / 7 - c) for c in range(3)], -1)
    image[height // 3 : height // 2, width // 4 : width // 2] = [255, 0, 255]
    image += rng.normal(0, 12, image.shape) * (x[..., None] > width // 2)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def resizes():
    folder = OUT / "pillow"
    folder.mkdir(exist_ok=True)
    for name, (width, height) in {"wide": (67, 41), "tall": (23, 50)}.items():
        image = picture(width, height, 1)
        image.save(folder / f"{name}.png")
        for size in [(30, 20), (100, 90), (67, 11), (40, 70)]:
            for kind in ["bicubic", "bilinear"]:
                resized = image.resize(size, getattr(Image, kind.upper()))
                resized.save(folder / f"{name}-{size[0]}x{size[1]}-{kind}.png")


def formats():
    folder = OUT / "decode"
    folder.mkdir(exist_ok=True)
    image = picture(37, 26, 2)
    alpha = Image.linear_gradient("L").resize(image.size)
    rgba = image.copy()
    rgba.putalpha(alpha)
    files = {
        "rgb.png": (image, {}),
        "rgba.png": (rgba, {}),
        "grey.png": (image.convert("L"), {}),
        "grey-alpha.png": (rgba.convert("LA"), {}),
        "bilevel.png": (image.convert("1"), {}),
        "palette.png": (image.quantize(50), {}),
        "palette-4-bit.png": (image.quantize(16), {"bits": 4}),
        "palette-transparent.png": (image.quantize(50), {"transparency": 3}),
        "palette.gif": (image.quantize(50), {}),
        "lossless.webp": (image, {"lossless": True}),
        "rgb.bmp": (image, {}),
        "grey.tiff": (image.convert("L"), {}),
        "lzw.tiff": (image, {"compression": "tiff_lzw"}),
        "rgb.ppm": (image, {}),
        "rgb.tga": (image, {}),
        "rgb.jpg": (image, {"quality": 90, "subsampling": 0}),
        "progressive.jpg": (image, {"quality": 90, "subsampling": 0, "progressive": True}),
        "grey.jpg": (image.convert("L"), {"quality": 90}),
        "cmyk.jpg": (image.convert("CMYK"), {"quality": 95}),
    }
    for name, (source, options) in files.items():
        source.save(folder / name, **options)
        Image.open(folder / name).convert("RGB").save(folder / f"{name}.rgb.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", quality=90, subsampling=0, exif=exif)
    ImageOps.exif_transpose(Image.open(folder / "turned.jpg")).save(folder / "turned.jpg.upright.png")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    resizes()
    formats()

    net = trained_looking(Config(**SMALL), 1)
    torch.save(timm_training_state(net), OUT / "two-filters.pth.tar")
    expect("two-filters", net, 11)

    # A stem of another width than the first layer, whose first block then has a skip of stride 1.
    net = trained_looking(Config(**{**SMALL, "stem": 5}, filters=1), 2)
    save_file(net.state_dict(), OUT / "one-filter.safetensors")
    expect("one-filter", net, 12)

    net = trained_looking(Config(**SMALL, kernels=8), 3)
    torch.save(net.state_dict(), OUT / "shared-kernels.pth")
    expect("shared-kernels", net, 13)

    # float16, channels_last strides, DataParallel's names.
    net = trained_looking(Config(**SMALL), 4).half().to(memory_format=torch.channels_last)
    torch.save(OrderedDict((f"module.{k}", v) for k, v in net.state_dict().items()), OUT / "channels-last-half.pth")
    expect("channels-last-half", net, 14)

    net = trained_looking(Config(**SMALL, filters=3), 5).bfloat16()
    save_file(net.state_dict(), OUT / "bfloat16.safetensors")
    expect("bfloat16", net, 15)

    # Under a name of this length, the zip's first central entry is as long as its zip64 end records, and a
    # reader that guesses where the archive begins may take the second for the first.
    torch.save(load_file(OUT / "one-filter.safetensors"), OUT / "stem-of-21-characters.pth")

    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    # A ResNet's first tensors: enough to be one, and not a QLNet.
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(4, 4, 1, 1)}, OUT / "resnet.pth")

    for file in sorted(OUT.rglob("*.*")):
        print(f"{str(file.relative_to(OUT)):40} {file.stat().st_size:7,} bytes")


if __name__ == "__main__":
    main()
