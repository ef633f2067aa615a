"""Compares what this program sees of picture files with what Pillow sees, value by value.

    pip install pillow
    cargo build --release --example pixels
    python scripts/check_against_pillow.py [DIR_OR_FILE ...]

Without arguments, Pillow's source distribution is downloaded (`pip download`, the version that is
installed) and every file that its tests bring along is read. Pillow's side is
`ImageOps.exif_transpose(Image.open(file)).convert("RGB")`. The table counts files by Pillow's name for
their format; what differs is listed, with the reason where it is meant. The exit code is 1 if anything
differs, or is refused, for none of the reasons in `meant`.
"""

import argparse
import collections
import json
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import PIL
from PIL import Image, ImageChops, ImageOps

ROOT = Path(__file__).resolve().parent.parent
OURS = ["JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "ICO", "CUR", "TGA", "PPM", "QOI", "DDS"]
COLUMNS = ["files", "equal", "<= 1", "<= 5", "more", "refused", "only ours", "neither", "meant"]


def meant(kind, mode, note, column, text):
    """Why a file is not taken as Pillow takes it, where that is meant; else None."""
    if column == "only ours":
        return "whole, and of a kind that Pillow does not read"
    if column == "refused":
        if kind not in OURS:
            return "a format that is not decoded"
        if kind == "PPM" and mode == "F":
            return "PFM: Pillow makes black of what is below 1"
        if "lossless JPEG" in text:
            return "lossless JPEG: libjpeg-turbo before version 3 does not decode it"
        if "old-style JPEG" in text:
            return "old-style JPEG in TIFF without a JPEG stream"
        if "the image inside has" in text:
            return "a JPEG in TIFF with more rows than there are"
    if column == "more" and (mode.startswith("I;16") or kind == "PPM" and mode == "I"):
        return "grey of more than 8 bits: Pillow makes white of what exceeds 255, here the upper 8 bits are kept"
    if column == "more" and note == "planes":
        return "TIFF with planes of 16 bits that are not compressed: Pillow mixes up their bytes"
    if column == "more" and note == "animation":
        return "animated WebP: Pillow shows what colours lie under full transparency"
    if column == "<= 1" and kind == "DDS":
        return "BC6H is rounded as its specification has it"
    if column == "<= 1" and mode == "LAB":
        return "Lab: the last digit of littleCMS"
    return None


def sdist(folder):
    """Pillow's tests, as they are published."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pillow"]
        + ["--dest", folder, f"pillow=={PIL.__version__}"],
        check=True,
    )
    [archive] = Path(folder).glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return archive.with_suffix("").with_suffix("") / "Tests"


def by_pillow(file):
    """Format, mode, something more, and size and pixels; or None and the reason."""
    image = note = None
    signal.alarm(60)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file)
            kind, mode = image.format, image.mode
            if kind == "WEBP" and image.is_animated:
                note = "animation"
            if kind == "TIFF" and image.tag_v2.get(284) == 2 and 16 in image.tag_v2.get(258, ()):
                note = "planes"
            turned = ImageOps.exif_transpose(image).convert("RGB")
            return kind, mode, note, turned.size, turned.tobytes()
    except Exception as error:
        return image and image.format, image and image.mode, note, None, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def ours(program, files, folder):
    """What the program says of each file."""
    said = {}
    left = list(files)
    while left:
        run = subprocess.run([program, folder, *left[:200]], capture_output=True, text=True)
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        for number, line in enumerate(lines):
            pixels = Path(folder, f"{number}.ppm")
            said[line["file"]] = line
            if line["error"] is None:
                said[line["file"]]["image"] = pixels.rename(Path(folder, f"kept-{len(said)}.ppm"))
        if len(lines) < len(left[:200]):
            said[left[len(lines)]] = {"error": f"ABORTED with {run.returncode}: {run.stderr[-200:]}"}
            lines.append(None)
        left = left[len(lines):]
    return said


def compare(theirs, line):
    """The column of the table, and what to say."""
    size, pixels = theirs[3:]
    if line["error"] is not None:
        return ("neither", "") if size is None else ("refused", line["error"])
    if size is None:
        return "only ours", pixels
    header, data = re.match(rb"P6 (\d+) (\d+) 255\n", (data := line["image"].read_bytes())), data
    found = (int(header[1]), int(header[2]))
    if found != size:
        return "more", f"{found} instead of {size}"
    data = data[header.end():]
    if data == pixels:
        return "equal", ""
    difference = ImageChops.difference(Image.frombytes("RGB", size, data), Image.frombytes("RGB", size, pixels))
    largest = max(high for _, high in difference.getextrema())
    share = sum(1 for value in difference.tobytes() if value) / len(pixels)
    column = "<= 1" if largest <= 1 else "<= 5" if largest <= 5 else "more"
    return column, f"differs by up to {largest} in {share:.2%} of the values"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--pixels", default=ROOT / "target/release/examples/pixels", type=Path)
    parser.add_argument("--quiet", action="store_true", help="only the table and what is not explained")
    args = parser.parse_args()

    def overdue(*_):
        raise TimeoutError("more than 60 s")

    signal.signal(signal.SIGALRM, overdue)
    Image.init()
    with tempfile.TemporaryDirectory() as folder:
        paths = args.paths or [sdist(folder)]
        files = [f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p]) if f.is_file()]
        files = [str(f) for f in files if f.suffix not in (".py", ".sh", ".txt", ".rst", ".md")]
        said = ours(args.pixels, files, folder)
        table = collections.defaultdict(collections.Counter)
        unexplained = 0
        for file in files:
            theirs = by_pillow(file)
            kind = theirs[0] or "not opened"
            column, text = compare(theirs, said[file])
            if "image" in said[file]:
                said[file]["image"].unlink()
            table[kind]["files"] += 1
            table[kind][column] += 1
            if column in ("equal", "neither"):
                continue
            reason = meant(*theirs[:3], column, text)
            table[kind]["meant"] += reason is not None
            unexplained += reason is None
            if not (reason and args.quiet):
                print(f"{kind}\t{theirs[1]}\t{column}\t{file}\t{text}" + (f"\t[{reason}]" if reason else ""))
    print(f"\n{'':12}" + "".join(f"{column:>11}" for column in COLUMNS))
    order = [k for k in OURS if k in table] + sorted(k for k in table if k not in OURS)
    for kind in order:
        print(f"{kind:12}" + "".join(f"{table[kind][column]:>11}" for column in COLUMNS))
    print(f"\n{unexplained} not explained")
    sys.exit(unexplained > 0)


if __name__ == "__main__":
    main()
