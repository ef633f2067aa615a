"""Makes fuzz/seeds: small files of the forms that are no pictures, of which tests/fixtures has enough.

    pip install torch numpy pillow safetensors OpenEXR
    cargo build --release
    python fuzz/make_seeds.py target/release/qlnet
"""

import argparse
import io
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "fuzz" / "seeds"
sys.path.insert(0, str(ROOT / "reference"))
from qlnet import Config, QLNet  # noqa: E402

TINY = Config(stem=2, widths=(2, 4), depths=(1, 1), wide_up_to=0, classes=3)


def put(target, name, content):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def saved(state, **options):
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def stored(entries):
    """A zip like torch.save's, with less between its entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def smaller(checkpoint):
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        return stored([(name, archive.read(name)) for name in archive.namelist()])


def checkpoints():
    torch.manual_seed(1)
    net = QLNet(TINY).eval()
    state = net.state_dict()
    training = {"epoch": 3, "state_dict": state, "args": argparse.Namespace(lr=0.1, data=Path("x")), "metric": 60.25}
    put("checkpoint", "state_dict.pth", smaller(saved(state)))
    put("checkpoint", "training.pth.tar", smaller(saved(training)))
    few = OrderedDict(a=torch.arange(6.0).reshape(2, 3).t(), b=torch.ones(2, dtype=torch.float16), c=torch.ones(3).bfloat16())
    few["d"] = few["a"][1:]
    few["e.num_batches_tracked"] = torch.tensor(7)
    put("checkpoint", "views.pth", saved(few))
    for protocol in (2, 4):
        file = saved(training, pickle_protocol=protocol)
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            put("pickle", f"training-{protocol}", archive.read(name))
    import pickle

    for protocol in (2, 3, 4, 5):
        plain = {"a": [1, -2, 300, 70000, 2**40, True, 2.5, None, b"x"], "t": (1, 2, 3, 4), "s": {1}, "f": frozenset([1])}
        put("pickle", f"plain-{protocol}", pickle.dumps(plain, protocol))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "a.safetensors")
        put("safetensors", "state_dict", (folder / "a.safetensors").read_bytes())
        halves = {"a": torch.ones(2, 2).half(), "b": torch.ones(1).bfloat16(), "c": torch.ones(3).double(), "d": torch.arange(2)}
        save_file(halves, folder / "b.safetensors", metadata={"format": "pt"})
        put("safetensors", "halves", (folder / "b.safetensors").read_bytes())
        # What the program keeps: the folded weights are in the folder that QLNET_CACHE names.
        (folder / "tiny.pth").write_bytes(saved(state))
        Image.new("RGB", (8, 8)).save(folder / "a.png")
        command = [PROGRAM, "classify", folder / "a.png", "--weights", folder / "tiny.pth", "--model", "qlnet-digits"]
        subprocess.run(command, env={"QLNET_CACHE": str(folder / "cache")}, capture_output=True)
        for kept in (folder / "cache").glob("*.safetensors"):
            put("folded", "tiny", kept.read_bytes())


def packed():
    block = dict(in_channels=2, hidden_channels=2, filters=1, out_channels=2, stride=1, skip="Identity")
    other = dict(block, filters=2, out_channels=3, stride=2, skip="Projection")
    for name, layers in {"one": [[block]], "two": [[block], [other]]}.items():
        config = dict(stem_channels=2, layers=layers, num_classes=3)
        for kind, length in PACKED[name].items():
            put("packed", f"{name}-{kind}", json.dumps(config, separators=(",", ":")).encode() + b"\n" + bytes(length))


def exif():
    for order in "<>":
        mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
        entry = struct.pack(order + "HHIHH", 0x112, 3, 1, 6, 0)
        put("exif", {"<": "intel", ">": "motorola"}[order], mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4))
    put("exif", "marked", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    put("exif", "xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="6"/><tiff:Orientation>8</tiff:Orientation>')


def archive(members, form):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    # Two blocks of zeros at the end will do.
    return file.getvalue().rstrip(b"\0").ljust(512, b"\0") + bytes(-len(file.getvalue().rstrip(b"\0")) % 512 + 1024)


def png(size=(2, 1)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 10, 99)).save(file, "png")
    return file.getvalue()


def archives():
    forms = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    for form, number in forms.items():
        long = "3/" + ("x" * 40 if form == "ustar" else "é" * 120) + ".png"
        put("tar", form, archive([("val/3/a.png", png()), ("val/7/b.png", png()), ("val/" + long, b"x")], number))
    samples = [("0.png", png()), ("0.cls", b"3"), ("0.json", b'{"label": 3}'), ("1.png", png()), ("1.cls", b"7\n")]
    put("webdataset", "classes", archive(samples, tarfile.USTAR_FORMAT))
    samples = [("a/0.jpg", b"x"), ("a/0.json", b'{"label": 3, "name": "three"}'), ("a/1.seg.png", b"x"), ("b.cls", b"9")]
    put("webdataset", "json", archive(samples, tarfile.PAX_FORMAT))


def labels():
    put("labels", "digits", "03\n7\n9\n")
    put("labels", "digits-named", "0c.png,3\na.png 7\nb.png\t9\n")
    put("labels", "wordnet", "1n01440764\nn01443537\ngoldfish\n")
    put("labels", "kaggle", "1ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n"
        "ILSVRC2012_val_00000002,n01443537 1 2 3 4\nILSVRC2012_val_00000003,n01440764 1 2 3 4\n")
    put("labels", "numbers", "2490\n361\n171\n")
    put("labels", "class-map", "3cat 281\n7,207\nn01440764\t0\n")
    put("labels", "folders", "3n01440764\ncat\n7\n")
    put("labels", "development-kit", "4n02119789 1 kit_fox\nn02100735 2 English_setter\nn02110185 3 Siberian_husky\n")
    put("labels", "real", "5[[0, 1], [], [999]]")
    put("labels", "real-by-name", "6[[5],[],[1,2]]")
    put("labels", "outputs", "76\n11\nn01440764 tench\n")
    put("labels", "names", "8a.png\r\nfolder/b c.jpg\n")
    put("labels", "names-nul", b"9a.png\0b\nc.png\0")


def pictures():
    """Of the formats that tests/fixtures/decode has none of."""
    import OpenEXR

    put("farbfeld", "small", b"farbfeld" + struct.pack(">II", 3, 2) + bytes(range(48)))
    header = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n"
    put("hdr", "flat", header + b"-Y 2 +X 3\n" + bytes([10, 20, 30, 128]) * 6)
    row = b"\2\2\0\x08" + b"".join(bytes([0x80 + 8, value]) for value in (10, 20, 30, 128))
    put("hdr", "runs", header + b"-Y 2 +X 8\n" + 2 * row)
    values = np.linspace(0, 1, 5 * 4 * 3).reshape(4, 5, 3)
    for name, kind in dict(NO=np.float32, RLE=np.float16, ZIP=np.float16, PIZ=np.float16, PXR24=np.float32, B44=np.float16).items():
        options = {"compression": getattr(OpenEXR, f"{name}_COMPRESSION"), "type": OpenEXR.scanlineimage}
        (OUT / "exr").mkdir(exist_ok=True)
        with OpenEXR.File(options, {"RGB": values.astype(kind)}) as file:
            file.write(str(OUT / "exr" / name.lower()))
    y, x = np.mgrid[:64, :64]
    options = {"compression": OpenEXR.DWAA_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(options, {"RGB": np.stack([x / 64, y / 64, (x + y) / 128], 2).astype(np.float16)}) as file:
        file.write(str(OUT / "exr" / "dwa.exr"))


def predictions():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for digit in (3, 7):
            (folder / "set" / str(digit)).mkdir(parents=True)
            for number, source in enumerate(sorted((ROOT / "samples" / "digits").glob(f"{digit}-*"))[:2]):
                shutil.copy(source, folder / "set" / str(digit) / f"{number}.png")
        (folder / "set" / "7" / "bad.png").write_bytes(b"x")

        def run(name, *more):
            command = [PROGRAM, "eval", "--imagenet-val", folder / "set", "--model", "qlnet-digits", "--predictions", folder / name]
            subprocess.run([*command, *more], env={"QLNET_CACHE": str(folder / "cache")}, capture_output=True)
            return (folder / name).read_bytes()

        put("predictions", "csv", b"C" + run("a.csv"))
        put("predictions", "jsonl", b"J" + run("a.jsonl"))
        shards = [run(f"{shard}.csv", "--shard", f"{shard}/2") for shard in (1, 2)]
        put("predictions", "shards", b"C" + shards[0] + b"\n====\n" + shards[1])


PROGRAM = Path(sys.argv[1]).resolve()
# Bytes that the networks of `packed` take up, by what they are computed in and the numbers in a vector of the CPU.
PACKED = {
    "one": {"16": 22336, "8": 10816, "4": 5504, "bf16-16": 24128, "int8-16": 24640, "int8-8": 12480, "int8-4": 6464},
    "two": {"16": 28544, "bf16-16": 31872, "int8-16": 33152},
}

if __name__ == "__main__":
    checkpoints()
    packed()
    exif()
    archives()
    labels()
    pictures()
    predictions()
    for target in sorted(OUT.iterdir()):
        print(target.name, [(file.name, file.stat().st_size) for file in sorted(target.iterdir())])
