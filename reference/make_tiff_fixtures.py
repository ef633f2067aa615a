"""Makes the small TIFF files of tests/fixtures/decode, each with Pillow's pixels beside it (NAME.rgb.png as it is
stored, NAME.upright.png turned), and in `refused` those that have to be refused.

    pip install pillow==13.0.0 numpy
    python reference/make_tiff_fixtures.py

What Pillow does not read, or reads wrongly, has its pixels from here (`expected`).
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

import fixture_files
from fixture_files import bits_to_bytes

WIDTH, HEIGHT, ROWS, TILE = 21, 18, 7, 16
RANDOM = np.random.default_rng(21)
PACKERS = {"H": 3, "I": 4, "Q": 16}
DEFLATE = {259: 8}


def noise(channels=1, below=256, dtype="u1"):
    return RANDOM.integers(0, below, (HEIGHT, WIDTH, channels)).astype(dtype)


def picture(mode="RGB"):
    """Coarse noise, enlarged: smooth enough for JPEG, and nowhere flat."""
    small = Image.frombytes("RGB", (5, 4), RANDOM.integers(0, 256, 60, "u1").tobytes())
    return small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).convert(mode)


def lzw(data, least_first):
    """Codes of 9 bits that are cleared before there would be longer ones: nothing is compressed."""
    codes = [code for n in range(0, len(data), 200) for code in [256, *data[n : n + 200]]] + [257]
    return bits_to_bytes(codes, 9, least_first)


def packbits(data):
    return b"".join(bytes([len(data[n : n + 100]) - 1]) + data[n : n + 100] for n in range(0, len(data), 100))


def reversed_bits(data):
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


def directory(order, tags, blocks, big=False):
    """A file of one page. Tags are numbers, lists of numbers, pairs for fractions, or bytes; the places of the
    blocks are those of tiles if there is the tag of their width."""
    tags = dict(tags)
    places, sizes = (324, 325) if 322 in tags and 273 not in tags else (273, 279)
    tags[sizes] = [len(block) for block in blocks]
    tags.setdefault(places, [0] * len(blocks))
    word, head = ("Q", 16) if big else ("I", 8)
    limit = struct.calcsize(word)
    for _ in range(2):
        after = head + (8 if big else 2) + len(tags) * (4 + 2 * limit) + limit
        entries = more = b""
        for tag, value in sorted(tags.items()):
            values = value if isinstance(value, (list, bytes)) else [value]
            if isinstance(values, bytes):
                kind, count, data = 7, len(values), values
            elif isinstance(values[0], tuple):
                kind, count = 5, len(values)
                data = b"".join(struct.pack(order + "II", *pair) for pair in values)
            else:
                code = "I" if tag in (places, sizes) else "H"
                kind, count, data = PACKERS[code], len(values), struct.pack(f"{order}{len(values)}{code}", *values)
            if len(data) > limit:
                place = struct.pack(order + word, after + len(more))
                more += data + bytes(len(data) % 2)
                data = place
            entries += struct.pack(order + "HH" + word, tag, kind, count) + data.ljust(limit, b"\0")
        at = after + len(more)
        tags[places] = [at + sum(map(len, blocks[:n])) for n in range(len(blocks))]
    mark = {"<": b"II", ">": b"MM"}[order]
    header = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return mark + header + count + entries + bytes(limit) + more + b"".join(blocks)


def tiff(values, photometric, bits=None, order="<", tiled=False, planar=False, pack=bytes, big=False, more=None):
    """An array [height, width, channels], whose type and order are those of the file; with `bits`, of fewer."""
    height, width, channels = values.shape
    bits = bits or 8 * values.itemsize
    tags = {256: width, 257: height, 258: [bits] * channels, 262: photometric, 277: channels}
    tags |= {322: TILE, 323: TILE} if tiled else {278: ROWS}
    tags |= {284: 2} if planar else {}
    blocks = []
    for plane in np.split(values, channels, axis=2) if planar else [values]:
        for top in range(0, height, TILE if tiled else ROWS):
            for left in range(0, width, TILE) if tiled else [0]:
                if tiled:
                    block = np.zeros((TILE, TILE, plane.shape[2]), values.dtype)
                    part = plane[top : top + TILE, left : left + TILE]
                    block[: part.shape[0], : part.shape[1]] = part
                else:
                    block = plane[top : top + ROWS]
                rows = [row.tobytes() if bits % 8 == 0 else bits_to_bytes(row.flat, bits) for row in block]
                blocks.append(pack(b"".join(rows)))
    return directory(order, tags | (more or {}), blocks, big)


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, "TIFF", **options)
    return file.getvalue()


def write(name, data, expected=None, upright=False):
    image = None
    if expected is not None:
        expected = np.broadcast_to(expected, (HEIGHT, WIDTH, 3))
        image = Image.fromarray(np.ascontiguousarray(expected.astype("u1")))
    fixture_files.write(f"{name}.tiff", data, image, upright)


def refuse(name, data):
    fixture_files.refuse(f"{name}.tiff", data)


def differences(values):
    """What the horizontal predictor stores."""
    return np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1]))


def ycbcr_groups(across, down, pack=zlib.compress, **tags):
    tags = {256: WIDTH, 257: HEIGHT, 258: [8] * 3, 262: 6, 277: 3, 278: 8, 530: [across, down], **tags}
    sizes = [-(-WIDTH // across) * -(-rows // down) * (across * down + 2) for rows in (8, 8, 2)]
    blocks = [pack(RANDOM.integers(0, 256, size, "u1").tobytes()) for size in sizes]
    return directory("<", {int(tag): value for tag, value in tags.items()}, blocks)


def grey():
    write("1-bit-white-is-zero", tiff(noise(below=2), 0, 1, ">"))
    write("2-bits", tiff(noise(below=4), 1, 2, tiled=True))
    write("4-bits-fill-order-2", tiff(noise(below=16), 0, 4, pack=reversed_bits, more={266: 2}))
    values = noise(below=4096, dtype="u2")
    write("12-bits", tiff(values, 1, 12), values >> 4)
    values = noise(below=65536, dtype=">u2")
    write("16-bits", tiff(values, 1, order=">", tiled=True), values >> 8)
    write("16-bits-white-is-zero", tiff(values.astype("<u2"), 0), 255 - (values >> 8))
    write("signed-8-bits", tiff(noise(), 1, more={339: 2}))
    write("signed-16-bits", tiff(noise(below=600, dtype=">i2") - 150, 1, order=">", more={339: 2}))
    write("32-bits", tiff(noise(below=600, dtype="<i4") - 150, 1, more={339: 2}))
    values = RANDOM.uniform(-100, 400, (HEIGHT, WIDTH, 1)).astype("<f4")
    write("float", tiff(values, 1, more={339: 3}))
    # Pillow swaps the bytes once more than it should.
    clipped = values.clip(0, 255).astype("u1")
    write("float-big-endian", tiff(values.astype(">f4"), 1, order=">", pack=zlib.compress, more=DEFLATE | {339: 3}), clipped)
    planes = values.astype(">f4").view("u1").reshape(HEIGHT, WIDTH, 4).transpose(0, 2, 1).reshape(HEIGHT, -1, 1)
    stored = differences(planes).reshape(HEIGHT, -1).copy().view("<f4").reshape(HEIGHT, WIDTH, 1)
    write("float-predictor", tiff(stored, 1, pack=zlib.compress, more=DEFLATE | {317: 3, 339: 3}))
    write("grey-alpha", tiff(noise(2), 1, more={338: 2}))
    # Pillow reads that, and does not convert it.
    values = noise(2)
    shade, alpha = np.split(values.astype(int), 2, axis=2)
    divided = np.where(alpha > 0, (shade * 255 // np.maximum(alpha, 1)).clip(0, 255), shade)
    write("grey-premultiplied", tiff(values, 1, planar=True, more={338: 1}), divided)


def palettes():
    def colours(bits):
        return {320: RANDOM.integers(0, 65536, 3 << bits).tolist()}

    write("palette-1-bit", tiff(noise(below=2), 3, 1, more=colours(1)))
    write("palette-2-bits", tiff(noise(below=4), 3, 2, ">", more=colours(2)))
    write("palette-4-bits", tiff(noise(below=16), 3, 4, tiled=True, more=colours(4)))
    write("palette-short", tiff(noise(), 3, more=colours(7)))
    write("palette-alpha", tiff(noise(2), 3, pack=packbits, more=colours(8) | {259: 32773, 338: 2}))


def colours():
    write("rgb-tiles", tiff(noise(3), 2, tiled=True))
    write("rgb-planes", tiff(noise(3), 2, planar=True))
    write("rgb-planar-tiles", tiff(noise(3), 2, order=">", tiled=True, planar=True, pack=zlib.compress, more=DEFLATE))
    stored = differences(noise(3, 65536, ">u2"))
    write("rgb-16-bits-predictor", tiff(stored, 2, order=">", pack=zlib.compress, more=DEFLATE | {317: 2}))
    # Pillow takes the bytes of a plane for pixels.
    values = noise(3, 65536, "<u2")
    write("rgb-16-bits-planes", tiff(values, 2, planar=True), values >> 8)
    # Pillow does not read this.
    values = (noise(3) / 96 - 0.5).astype("<f4")
    stored = tiff(values, 2, pack=zlib.compress, more=DEFLATE | {339: [3] * 3})
    write("rgb-float", stored, np.floor(values.clip(0, 1) * 255 + 0.5))
    write("rgb-further-samples", tiff(noise(5), 2, more={338: [0, 0]}))
    write("rgb-undeclared-alpha", tiff(noise(4), 2))
    write("rgb-premultiplied", tiff(noise(4), 2, more={338: 1}))
    write("rgb-premultiplied-16-bits", tiff(noise(4, 65536, ">u2"), 2, order=">", more={338: 1}))
    write("rgb-premultiplied-planes", tiff(noise(4), 2, planar=True, pack=zlib.compress, more=DEFLATE | {338: 1}))
    # Pillow does not read BigTIFF in this byte order.
    values = noise(3)
    write("bigtiff", tiff(values, 2, big=True))
    write("bigtiff-big-endian", tiff(values, 2, order=">", big=True), values)
    write("cmyk-planes", tiff(noise(4), 5, planar=True))
    write("cmyk-16-bits", tiff(noise(4, 65536, "<u2"), 5))
    write("lab", saved(Image.merge("LAB", picture().split())))
    write("ycbcr", tiff(noise(3), 6, more={530: [1, 1]}))
    studio = {"532": [(16, 1), (235, 1), (128, 1), (240, 1)] + [(128, 1), (240, 1)]}
    bt709 = {"529": [(2126, 10000), (7152, 10000), (722, 10000)]}
    write("ycbcr-2x2", ycbcr_groups(2, 2, **{"259": 8}, **studio, **bt709))
    write("ycbcr-4x1", ycbcr_groups(4, 1, **{"259": 8}))


def compressions():
    values = noise(3)
    for name, number, pack in [
        ("lzw-old", 5, lambda data: lzw(data, True)),
        ("lzw-msb", 5, lambda data: lzw(data, False)),
        ("deflate-old", 32946, zlib.compress),
        ("packbits", 32773, packbits),
    ]:
        write(name, tiff(values, 2, pack=pack, more={259: number}))
    fill = tiff(values, 2, pack=lambda data: reversed_bits(zlib.compress(data)), more=DEFLATE | {266: 2})
    write("deflate-fill-order-2", fill)
    # Tiles whose places are in the tags of strips.
    tiles = tiff(values, 2, tiled=True, pack=zlib.compress, more=DEFLATE | {273: [0] * 4, 278: TILE})
    write("tiles-as-strips", tiles)
    # The number 42 in the wrong byte order.
    plain = tiff(values, 2)
    write("wrong-magic", plain[:2] + b"\0*" + plain[4:], values)
    for name in ["lzma", "zstd"]:
        write(name, saved(picture(), compression=name))
    write("lzw-predictor", saved(picture(), compression="tiff_lzw", tiffinfo={317: 2}))
    bilevel = picture("1")
    write("fax-huffman", saved(bilevel, compression="tiff_ccitt"))
    write("fax-group3", saved(bilevel, compression="group3", tiffinfo={266: 2}))
    write("fax-group3-2d", saved(bilevel, compression="group3", tiffinfo={292: 1}))
    write("fax-group3-fill-bits", saved(bilevel, compression="group3", tiffinfo={292: 5}))
    write("fax-group4", saved(bilevel, compression="group4"))
    for mode in ["L", "RGB", "CMYK", "YCbCr"]:
        write(f"jpeg-{mode.lower()}", saved(picture(mode), compression="jpeg"))
    whole = io.BytesIO()
    picture().save(whole, "JPEG", quality=90)
    old = {256: WIDTH, 257: HEIGHT, 258: [8] * 3, 259: 6, 262: 6, 277: 3, 278: HEIGHT, 530: [2, 2], 513: 0}
    place = len(directory("<", old, [b""]))
    write("jpeg-old-style", directory("<", old | {513: place}, [whole.getvalue()]))
    # Pillow is built without it.
    webp = io.BytesIO()
    Image.fromarray(values).save(webp, "WEBP", lossless=True)
    sizes = {256: WIDTH, 257: HEIGHT, 258: [8] * 3, 259: 50001, 262: 2, 277: 3, 278: HEIGHT}
    write("webp", directory("<", sizes, [webp.getvalue()]), values)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    write("orientation-xmp", tiff(values, 2, more={700: xmp}), upright=True)


def refused():
    values = noise(3)
    for name, more, pack in [
        ("none", {}, bytes),
        ("lzw", {259: 5}, lambda data: lzw(data, False)),
        ("deflate", DEFLATE, zlib.compress),
        ("packbits", {259: 32773}, packbits),
    ]:
        refuse(f"cut-{name}", tiff(values, 2, pack=pack, more=more)[:-9])
        # The strips end too early, and not the file.
        if more:
            refuse(f"short-{name}", tiff(values, 2, pack=lambda data: pack(data[:-1]), more=more))
    refuse("cut-group4", tiff(noise(below=2), 0, 1, pack=lambda _: b"\0\x10\x01", more={259: 4}))
    jpeg = io.BytesIO()
    picture().save(jpeg, "JPEG")
    size = {256: WIDTH, 257: HEIGHT, 258: [8] * 3, 259: 7, 262: 6, 277: 3}
    refuse("cut-jpeg", directory("<", size, [jpeg.getvalue()[:-40]]))
    refuse("no-strips", directory("<", {256: 5, 257: 5, 258: 8, 262: 1}, [b""]))
    refuse("strips-missing", tiff(values, 2, more={278: 3}))
    refuse("jpeg2000", tiff(values, 2, more={259: 34712}))
    refuse("logluv", tiff(values, 32845))
    refuse("colour-filter-array", tiff(noise(), 32803))
    refuse("no-palette", tiff(noise(), 3))
    refuse("complex", tiff(noise(1, dtype="u4"), 1, more={339: 5}))
    refuse("samples-missing", tiff(values, 5))


if __name__ == "__main__":
    for make in [grey, palettes, colours, compressions, refused]:
        make()
