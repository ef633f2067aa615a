"""Makes a folder of JPEG photographs of ImageNet's usual size, for timing and for comparing decoders.

    pip install numpy pillow scikit-image
    python scripts/make_photos.py DIR [--images 2000]

Cuts random parts out of the photographs that scikit-image brings along, at random scales, mirrors
half of them, and saves them as 500x375 JPEGs of about 110 kB each, in class folders named by
WordNet id as ImageFolder takes them. What a folder is called has nothing to do with what it holds.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SIZE = (500, 375)
BYTES = 110_000
WNIDS = Path(__file__).resolve().parent.parent / "data" / "imagenet.tsv"


def photographs():
    for name in ["astronaut", "cat", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field"]:
        yield Image.fromarray(getattr(data, name)()).convert("RGB")
    for side in data.stereo_motorcycle()[:2]:
        yield Image.fromarray(side).convert("RGB")


def cut(photo, rng):
    """A random part of a photograph, in its proportions or mirrored, 500x375."""
    largest = min(photo.width / SIZE[0], photo.height / SIZE[1])
    scale = rng.uniform(0.4, 1) * largest
    width, height = round(SIZE[0] * scale), round(SIZE[1] * scale)
    x, y = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
    part = photo.resize(SIZE, Image.LANCZOS, box=(x, y, x + width, y + height))
    # Cameras leave noise, and files of this size need some detail.
    noisy = np.asarray(part, np.float32) + rng.normal(0, rng.uniform(4, 10), (SIZE[1], SIZE[0], 3))
    part = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return part.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def encode(image):
    """JPEG with the quality that comes nearest to the size; 4:2:0 as most of ImageNet."""
    low, high = 40, 98
    while low < high:
        quality = (low + high + 1) // 2
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        low, high = (quality, high) if buffer.tell() <= BYTES else (low, quality - 1)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=low)
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    wnids = [line.split("\t")[1] for line in WNIDS.read_text().splitlines()[1:]]
    chosen = sorted(rng.choice(wnids, args.classes, replace=False))
    photos = list(photographs())
    total = 0
    for index in range(args.images):
        jpeg = encode(cut(photos[index % len(photos)], rng))
        folder = args.directory / chosen[index % len(chosen)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"photo_{index:05}.JPEG").write_bytes(jpeg)
        total += len(jpeg)
    print(f"{args.images} images of {len(photos)} photographs, {total / args.images / 1e3:.0f} kB each")


if __name__ == "__main__":
    main()
