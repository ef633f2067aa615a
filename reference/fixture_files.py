"""What the scripts share that make the picture files of tests/fixtures/decode."""

import io
from pathlib import Path

from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "decode"
(OUT / "refused").mkdir(parents=True, exist_ok=True)


def bits_to_bytes(values, bits, least_first=False):
    """Numbers of so many bits each, padded to whole bytes."""
    text = "".join(f"{v:0{bits}b}"[:: -1 if least_first else 1] for v in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[n : n + 8][:: -1 if least_first else 1], 2) for n in range(0, len(text), 8))


def write(name, data, expected=None, upright=False):
    """A file, and beside it `expected`, or Pillow's pixels: as it is stored, or turned."""
    (OUT / name).write_bytes(data)
    if expected is None:
        image = Image.open(io.BytesIO(data))
        image.load()
        expected = (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    # The profile that Pillow converts Lab by says when it was made.
    expected.save(OUT / f"{name}.{'upright' if upright else 'rgb'}.png", optimize=True, icc_profile=None)


def refuse(name, data):
    """A file that has to be refused; says so if Pillow does not."""
    (OUT / "refused" / name).write_bytes(data)
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:
        return
    print(f"Pillow reads {name}")
