"""Makes the small files of tests/fixtures/decode of the kinds GIF, BMP, DIB, ICO, CUR, DDS, TGA and QOI, each
with Pillow's pixels beside it (NAME.rgb.png), and in `refused` those that have to be refused.

    pip install pillow==13.0.0
    python reference/make_small_format_fixtures.py

What Pillow does not read, or reads wrongly, has its pixels from here (`expected`).
"""

import io
import random
import struct

from PIL import Image

from fixture_files import bits_to_bytes, refuse, write

WIDTH, HEIGHT = 13, 7
RANDOM = random.Random(13)
COLOURS = [tuple(RANDOM.randrange(256) for _ in range(3)) for _ in range(256)]
SHADES = [(n, n, n) for n in range(256)]


def indices(below, width=WIDTH, height=HEIGHT):
    return [[RANDOM.randrange(below) for _ in range(width)] for _ in range(height)]


def noise(length):
    return bytes(RANDOM.randrange(256) for _ in range(length))


# GIF


def table(colours):
    return 0x80 | (len(colours).bit_length() - 2), b"".join(map(bytes, colours))


def gif(rows, screen=None, at=(0, 0), colours=None, local=None, transparent=None, interlaced=False, stray=b""):
    height, width = len(rows), len(rows[0])
    flags, global_table = table(colours) if colours else (0, b"")
    file = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), flags, 1, 0) + global_table + stray
    if transparent is not None:
        file += b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    file += b"!\xfe\x05hello\0"
    flags, local_table = table(local) if local else (0, b"")
    file += b"," + struct.pack("<HHHHB", *at, width, height, flags | (0x40 if interlaced else 0)) + local_table
    if interlaced:
        rows = [rows[y] for first, step in [(0, 8), (4, 8), (2, 4), (1, 2)] for y in range(first, height, step)]
    # Codes of 9 bits that are cleared before there would be longer ones: nothing is compressed.
    pixels = [index for row in rows for index in row]
    codes = [code for n in range(0, len(pixels), 200) for code in [256, *pixels[n : n + 200]]] + [257]
    data = bits_to_bytes(codes, 9, least_first=True)
    blocks = b"".join(bytes([len(data[n : n + 100])]) + data[n : n + 100] for n in range(0, len(data), 100))
    return file + b"\x08" + blocks + b"\0;"


# BMP


def bmp(data, bits, compression=0, colours=(), height=HEIGHT, header=40, masks=(), planes=1, count=None, file=True):
    entries = b"".join(bytes([b, g, r]) + (b"" if header == 12 else b"\0") for r, g, b in colours)
    if header == 12:
        dib = struct.pack("<IHHHH", 12, WIDTH, height, planes, bits)
    else:
        count = len(colours) if count is None else count
        dib = struct.pack("<IiiHHIIiiII", header, WIDTH, height, planes, bits, compression, len(data), 0, 0, count, 0)
        if masks and header > 40:
            dib += struct.pack(f"<{len(masks)}I", *masks)
        dib = dib.ljust(header, b"\0")
        if masks and header == 40:
            dib += struct.pack(f"<{len(masks)}I", *masks)
    start = 14 + len(dib) + len(entries)
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) if file else b""
    return head + dib + entries + data


def packed(rows, bits):
    """Rows of indices, padded to 32 bits, the last one first."""
    lines = [bits_to_bytes(row, bits) for row in rows[::-1]]
    return b"".join(line + b"\0" * (-len(line) % 4) for line in lines)


RUNS_8 = b"".join(
    # Runs, pixels as they are with and without padding, a row that ends early, a jump, a run that is too long.
    [b"\x05\x07\x08\x09\0\0", b"\0\x05abcde\0\x04\x03\0\0", b"\0\x04wxyz\0\0", b"\0\x02\x03\x02"]
    + [b"\x0a\x11\0\0", b"\xff\x21\0\0", b"\0\x01"]
)
RUNS_4 = b"".join(
    [b"\x05\x12\x08\x34\0\0", b"\0\x05\x12\x34\x50\0\x04\x9a\0\0", b"\0\x03\xab\xc0\0\0", b"\0\x02\x02\x02"]
    + [b"\x0b\x56\0\0", b"\xff\x78\0\0", b"\0\x01"]
)


# ICO and CUR


def icon(kind, entries):
    """Entries of width, height, colours, bits (in a cursor, where its point is) and the picture."""
    file, start = struct.pack("<HHH", 0, kind, len(entries)), 6 + 16 * len(entries)
    for width, height, colours, bits, picture in entries:
        file += struct.pack("<BBBBHHII", width, height, colours, 0, 1, bits, len(picture), start)
        start += len(picture)
    return file + b"".join(picture for *_, picture in entries)


def with_mask(data, bits, colours=(), mask=None):
    mask = packed(indices(2), 1) if mask is None else mask
    return bmp(data + mask, bits, colours=colours, height=2 * HEIGHT, file=False)


def png(mode):
    file = io.BytesIO()
    size = WIDTH, HEIGHT
    Image.frombytes(mode, size, noise(WIDTH * HEIGHT * len(Image.new(mode, (1, 1)).tobytes()))).save(file, "PNG")
    return file.getvalue()


# DDS


def dds(data, flags=4, code=b"\0\0\0\0", bits=0, masks=(0, 0, 0, 0), dxgi=None):
    header = struct.pack("<7I", 124, 0x1007, HEIGHT, WIDTH, 0, 0, 0) + bytes(44)
    header += struct.pack("<2I4sI4I", 32, flags, code, bits, *masks) + struct.pack("<5I", 0x1000, 0, 0, 0, 0)
    if dxgi:
        header += struct.pack("<5I", dxgi, 3, 0, 1, 0)
    return b"DDS " + header + data


BLOCKS = -(-WIDTH // 4) * -(-HEIGHT // 4)


def bc6h():
    # Blocks of one subset whose two end points are equal: Pillow leaves out the rounding between them.
    file = b""
    for _ in range(BLOCKS):
        ends = [RANDOM.randrange(460) for _ in range(3)]
        number = 0b00011 | sum(v << (5 + 10 * n) for n, v in enumerate(ends + ends))
        file += (number | RANDOM.getrandbits(63) << 65).to_bytes(16, "little")
    return file


def main():
    files, expected, refused = {}, {}, {}

    rows = indices(256)
    files["small-frame.gif"] = gif(rows, (16, 11), (2, 3), COLOURS)
    files["small-frame-transparent.gif"] = gif(indices(3), (16, 11), (2, 3), COLOURS, transparent=2)
    files["frame-outside.gif"] = gif(rows, (6, 5), (3, 2), COLOURS, transparent=9)
    files["no-colours.gif"] = gif(rows, (16, 11), (2, 3))
    files["shades.gif"] = gif(rows, colours=SHADES[:128])
    files["local-colours.gif"] = gif(rows, colours=SHADES, local=COLOURS)
    files["local-shades.gif"] = gif(rows, colours=COLOURS, local=SHADES)
    files["few-colours.gif"] = gif(rows, colours=COLOURS[:4], stray=b"\0\x01")
    files["interlaced.gif"] = gif(indices(256, 3, 19), colours=COLOURS, interlaced=True)
    files["interlaced-3-rows.gif"] = gif(indices(256, 5, 3), colours=COLOURS, interlaced=True)
    refused["cut.gif"] = files["small-frame.gif"][:-30]
    refused["no-frame.gif"] = files["no-colours.gif"][:13] + b";"
    short = gif(rows[:-1], colours=COLOURS)
    at = short.index(struct.pack("<HHB", WIDTH, HEIGHT - 1, 0))
    refused["too-few-pixels.gif"] = short[:at] + struct.pack("<HHB", WIDTH, HEIGHT, 0) + short[at + 5 :]

    numbers = noise(4 * WIDTH * HEIGHT)
    row_16, row_24 = 2 * WIDTH + 2, 3 * WIDTH + 1
    files["5-bits.bmp"] = bmp(numbers[: row_16 * HEIGHT], 16)
    files["5-6-5-bits.bmp"] = bmp(numbers[: row_16 * HEIGHT], 16, 3, masks=(0xF800, 0x7E0, 0x1F))
    files["red-last.bmp"] = bmp(numbers, 32, 3, header=56, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000))
    files["top-down.bmp"] = bmp(numbers[: row_24 * HEIGHT], 24, height=-HEIGHT)
    files["no-last-padding.bmp"] = bmp(numbers[: row_24 * HEIGHT - 1], 24, planes=9)
    files["1-bit.bmp"] = bmp(packed(indices(2), 1), 1, colours=COLOURS[:2])
    files["4-bits-os2.bmp"] = bmp(packed(indices(16), 4), 4, colours=COLOURS[:16], header=12)
    files["8-bits-os2.bmp"] = bmp(packed(indices(256), 8), 8, colours=COLOURS, header=64)
    files["few-colours.bmp"] = bmp(packed(indices(256), 8), 8, colours=COLOURS[:9])
    files["few-shades.bmp"] = bmp(packed(indices(256), 8), 8, colours=SHADES[:9])
    whole = bmp(packed(rows, 8), 8, colours=COLOURS[:200])
    files["forgotten-colours.bmp"] = whole[:10] + struct.pack("<I", 54) + whole[14:]
    files["runs-8.bmp"] = bmp(RUNS_8, 8, 1, COLOURS)
    files["runs-8-top-down.bmp"] = bmp(RUNS_8, 8, 1, COLOURS, height=-HEIGHT)
    files["runs-4.bmp"] = bmp(RUNS_4, 4, 2, COLOURS[:16])
    files["4-bits.dib"] = bmp(packed(indices(16), 4), 4, colours=COLOURS[:16], file=False)
    four = indices(4)
    files["2-bits.bmp"] = bmp(packed(four, 2), 2, colours=COLOURS[:4])
    expected["2-bits.bmp"] = [[COLOURS[v] for v in row] for row in four]
    two = indices(2)
    files["8-bits-black-white.bmp"] = bmp(packed(two, 8), 8, colours=[(0, 0, 0), (255, 255, 255)])
    expected["8-bits-black-white.bmp"] = [[(255 * v,) * 3 for v in row] for row in two]
    fields = struct.unpack(f"<{WIDTH * HEIGHT}I", numbers)
    masks = (0x3FF00000, 0xFFC00, 0x3FF)
    files["10-bits.bmp"] = bmp(numbers, 32, 3, masks=masks)
    values = [tuple(((v >> shift) & 1023) * 255 // 1023 for shift in (20, 10, 0)) for v in fields]
    expected["10-bits.bmp"] = [values[n : n + WIDTH] for n in range(0, len(values), WIDTH)][::-1]
    refused["cut.bmp"] = files["top-down.bmp"][:-2]
    refused["runs-end-early.bmp"] = bmp(RUNS_8[:-8] + b"\0\x01", 8, 1, COLOURS)
    refused["jpeg.bmp"] = bmp(b"\xff\xd8\xff", 0, 4)

    mono = with_mask(packed(indices(2), 1), 1, COLOURS[:2])
    four_bits = with_mask(packed(indices(16), 4), 4, COLOURS[:16])
    rgba = with_mask(numbers, 32)
    # The largest, and of those the one with the fewest colours: 16 by the count, as no bits are given.
    small = bmp(noise(100), 24, file=False)
    entries = [(5, 3, 0, 24, small), (WIDTH, HEIGHT, 0, 32, rgba), (WIDTH, HEIGHT, 16, 0, four_bits)]
    files["several.ico"] = icon(1, entries + [(WIDTH, HEIGHT, 0, 8, b"")])
    files["1-bit.ico"] = icon(1, [(WIDTH, HEIGHT, 2, 1, mono)])
    files["rgba.ico"] = icon(1, [(WIDTH, HEIGHT, 0, 32, rgba)])
    files["png-grey.ico"] = icon(1, [(WIDTH, HEIGHT, 0, 32, png("L"))])
    files["png-rgb.ico"] = icon(1, [(0, 0, 0, 24, png("RGB"))])
    refused["no-mask.ico"] = icon(1, [(WIDTH, HEIGHT, 16, 4, four_bits[:-8])])[:-60]
    refused["empty.ico"] = icon(1, [])
    files["rgba.cur"] = icon(2, [(WIDTH, HEIGHT, 0, 5, rgba)])
    files["4-bits.cur"] = icon(2, [(1, 1, 0, 0, small), (WIDTH, HEIGHT, 0, 5, four_bits)])
    files["black-white.cur"] = icon(2, [(WIDTH, HEIGHT, 2, 0, with_mask(packed(indices(2), 1), 1, SHADES[::255]))])
    mask = packed(indices(256), 8)
    files["grey.cur"] = icon(2, [(WIDTH, HEIGHT, 0, 0, with_mask(packed(indices(256), 8), 8, SHADES, mask))])

    for name, code, dxgi, size in [
        ("bc1", b"DXT1", None, 8),
        ("bc2", b"DXT3", None, 16),
        ("bc3", b"DX10", 77, 16),
        ("bc4", b"ATI1", None, 8),
        ("bc5", b"BC5U", None, 16),
        ("bc5-signed", b"BC5S", None, 16),
        ("bc7", b"DX10", 98, 16),
    ]:
        files[f"{name}.dds"] = dds(noise(BLOCKS * size), code=code, dxgi=dxgi)
    files["bc6h.dds"] = dds(bc6h(), code=b"DX10", dxgi=95)
    files["rgba.dds"] = dds(noise(4 * WIDTH * HEIGHT), code=b"DX10", dxgi=28)
    files["masks-16.dds"] = dds(noise(2 * WIDTH * HEIGHT), 0x40, bits=16, masks=(0xF800, 0x7E0, 0x1F, 0))
    files["masks-24.dds"] = dds(noise(3 * WIDTH * HEIGHT), 0x40, bits=24, masks=(0xFF0000, 0xFF00, 0, 0))
    files["grey.dds"] = dds(noise(WIDTH * HEIGHT), 0x20000, bits=8)
    files["grey-alpha.dds"] = dds(noise(2 * WIDTH * HEIGHT), 0x20001, bits=16)
    files["palette.dds"] = dds(noise(1024 + WIDTH * HEIGHT), 0x20)
    refused["cut.dds"] = files["bc1.dds"][:-1]
    refused["unknown.dds"] = dds(noise(999), code=b"UYVY")

    head = struct.pack("<BBBHHBHHHH", 0, 0, 2, 0, 0, 0, 0, 0, WIDTH, HEIGHT)
    files["5-bits.tga"] = head + bytes([16, 1]) + noise(2 * WIDTH * HEIGHT)
    files["5-bits-alpha-8.tga"] = head + bytes([16, 8]) + noise(2 * WIDTH * HEIGHT)
    qoi = io.BytesIO()
    Image.frombytes("RGBA", (WIDTH, HEIGHT), numbers).save(qoi, "QOI")
    # Pillow's own encoder leaves the mark out or not, by version.
    body = qoi.getvalue().removesuffix(b"\0\0\0\0\0\0\0\1")
    files["no-end.qoi"] = body
    files["end.qoi"] = body + b"\0\0\0\0\0\0\0\1"
    refused["cut.qoi"] = body[:-3]

    for name, data in files.items():
        image = None
        if pixels := expected.get(name):
            image = Image.new("RGB", (len(pixels[0]), len(pixels)))
            image.putdata([pixel for row in pixels for pixel in row])
        write(name, data, image)
    for name, data in refused.items():
        refuse(name, data)


if __name__ == "__main__":
    main()
