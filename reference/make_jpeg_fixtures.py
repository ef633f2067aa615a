"""Makes the small files of tests/fixtures/decode that are JPEG or PNG, or say how they have to be turned, with
Pillow's pixels beside each: NAME.rgb.png as it is stored, NAME.upright.png turned. Those in `refused` have to
be refused.

    pip install pillow==13.0.0
    apt install libjpeg-turbo-progs
    python reference/make_jpeg_fixtures.py
"""

import io
import random
import struct
import subprocess
import zlib

from PIL import Image

from fixture_files import refuse, write

RANDOM = random.Random(7)
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def picture(width, height, seed):
    """Coarse noise, enlarged: smooth enough for JPEG, and nowhere flat."""
    noise = random.Random(seed)
    small = Image.frombytes("RGB", (5, 4), bytes(noise.randrange(256) for _ in range(60)))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def saved(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def scan(jpeg):
    """Where the data of the first scan begin."""
    at = jpeg.index(b"\xff\xda")
    return at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png, kind, data):
    """Behind the pixels, where a reader may have stopped."""
    return png[:-12] + chunk(kind, data) + png[-12:]


def exif(orientation):
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HHI", orientation, 0, 0)


def xmp(orientation):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def webp(image, metadata):
    """With the mark that only JPEG has before its EXIF data, as some cameras' programs write it."""
    body = saved(image, "WEBP", lossless=True)[12:]
    width, height = image.size
    extended = bytes([8, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"VP8X" + struct.pack("<I", 10) + extended + body
    body += b"EXIF" + struct.pack("<I", len(metadata)) + metadata + b"\0" * (len(metadata) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpegs():
    image = picture(37, 26, 1)
    plain = saved(image, quality=90)
    start = scan(plain)
    files = {
        "subsampled.jpg": plain,
        "subsampled-4x1.jpg": saved(image, quality=90, subsampling=1),
        "narrow.jpg": saved(picture(3, 5, 2), quality=90),
        "one-pixel.jpg": saved(picture(1, 1, 3), quality=90),
        "restarts.jpg": saved(image, quality=80, restart_marker_blocks=2),
        "progressive-subsampled.jpg": saved(image, quality=80, progressive=True),
        "rgb-inside.jpg": saved(image, quality=90, keep_rgb=True),
        "16-bit-quantisation.jpg": saved(image, qtables=[[300] * 64, [280] * 64]),
        "arithmetic.jpg": subprocess.run(["jpegtran", "-arithmetic"], input=plain, stdout=-1, check=True).stdout,
        "cmyk-subsampled.jpg": saved(image.convert("CMYK"), quality=90),
    }
    # What libjpeg warns of, and decodes all the same.
    files |= {
        "damaged-header.jpg": plain[:20] + b"junk!" + plain[20:],
        "damaged-scan.jpg": plain[: start + 150] + EOI + plain[start + 152 :],
        "damaged-codes.jpg": plain[: start + 100] + b"\xff\0" * 5 + plain[start + 110 :],
        "damaged-progressive.jpg": (p := files["progressive-subsampled.jpg"])[:-120] + bytes(4) + p[-116:],
        "damaged-exif.jpg": SOI + segment(0xE1, b"Exif\0\0nonsense") + plain[2:],
    }
    refused = {
        "cut.jpg": plain[: start + 200],
        "cut-end.jpg": plain[:-2],
        "cut-progressive.jpg": files["progressive-subsampled.jpg"][:-60],
        "cut-header.jpg": plain[:start - 30],
        "no-picture.jpg": SOI + segment(0xFE, b"hello") + EOI,
        "two-components.jpg": b"".join(
            [SOI, segment(0xC0, bytes([8, 0, 8, 0, 8, 2, 1, 0x11, 0, 2, 0x11, 0])), EOI]
        ),
    }
    return files, refused


def pngs():
    image = picture(21, 13, 4)
    wide = b"".join(b"\0" + bytes(RANDOM.randrange(256) for _ in range(8 * 5)) for _ in range(3))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 16, 6, 0, 0, 0))
    files = {
        "rgba-16.png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(wide)) + chunk(b"IEND", b""),
        "interlaced.png": interlaced(image),
        "interlaced-narrow.png": interlaced(picture(1, 3, 5)),
    }
    plain = saved(image, "PNG")
    at = plain.index(b"IDAT")
    refused = {"cut.png": plain[: at + 100], "rows-missing.png": rows_missing(image)}
    return files, refused


def rows_missing(image):
    width, height = image.size
    data = b"".join(b"\0" + image.crop((0, y, width, y + 1)).tobytes() for y in range(height - 2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def interlaced(image):
    """The seven passes of Adam7, which Pillow does not write."""
    width, height = image.size
    data = b""
    for x, y, right, down in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:
        columns, rows = range(x, width, right), range(y, height, down)
        for row in rows if columns else []:
            data += b"\0" + b"".join(bytes(image.getpixel((column, row))) for column in columns)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def turned():
    image = picture(7, 4, 6)
    files = {}
    for number in range(1, 9):
        plain = saved(image, quality=95)
        files[f"orientation-{number}.jpg"] = SOI + segment(0xE1, exif(number)) + plain[2:]
        files[f"orientation-{number}.png"] = with_chunk(saved(image, "PNG"), b"eXIf", exif(number)[6:])
        files[f"orientation-{number}.webp"] = webp(image, exif(number))
        files[f"orientation-{number}.tiff"] = saved(image, "TIFF", tiffinfo={274: number})
    namespace = b"http://ns.adobe.com/xap/1.0/\0"
    profile = exif(6)
    text = f"\nexif\n{len(profile):8}\n{profile.hex()}\n".encode()
    keyword = b"Raw profile type exif\0"
    packet = b"XML:com.adobe.xmp\0"
    png = saved(image, "PNG")
    files |= {
        "orientation-xmp.jpg": SOI + segment(0xE1, namespace + xmp(6)) + saved(image, quality=95)[2:],
        "orientation-xmp.png": with_chunk(png, b"iTXt", packet + bytes(4) + xmp(8)),
        "orientation-xmp-compressed.png": with_chunk(png, b"iTXt", packet + b"\1\0\0\0" + zlib.compress(xmp(3))),
        "orientation-profile.png": with_chunk(png, b"tEXt", keyword + text),
        "orientation-profile-compressed.png": with_chunk(png, b"zTXt", keyword + b"\0" + zlib.compress(text)),
    }
    return files


def main():
    for files, refused in [jpegs(), pngs()]:
        for name, data in files.items():
            write(name, data)
        for name, data in refused.items():
            refuse(name, data)
    for name, data in turned().items():
        write(name, data, upright=True)


if __name__ == "__main__":
    main()
