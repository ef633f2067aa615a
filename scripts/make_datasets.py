"""Makes the images of a folder of class folders into data sets as people hold them: Parquet files and
WebDataset shards of several makers. The bytes of every image stay what they are.

    pip install datasets pyarrow webdataset numpy pillow
    mkdir digits && tar -xf samples/digits-held-out.tar -C digits
    python scripts/make_datasets.py digits OUT                   or a folder that make_photos.py made
    python scripts/make_datasets.py digits OUT --only broken     one of the forms below
    python scripts/make_datasets.py digits OUT --rows 50000      only a large Parquet set, for measuring memory

What OUT gets:

    parquet-hf/         by Hugging Face's `datasets`, as ILSVRC/imagenet-1k: data/validation-00000-of-00003.parquet
                        and so on, with a train- file beside that is not to be read; the image a struct
                        of its bytes and its path, `STEM_WNID.EXT`, in the order of file names; label a ClassLabel
    parquet-none/ and parquet-snappy/, parquet-zstd/, parquet-gzip/    by pyarrow: other sizes of row groups and
                        pages, both versions of data pages, dictionary or not, other types and columns (VARIANTS)
    parquet-converted/  what the hub makes by itself of WebDataset shards (its branch refs/convert/parquet):
                        default/validation/0000.parquet with columns cls, jpg (or png), json, __key__ and __url__
    wds-timm/           as timm/imagenet-1k-wds: imagenet1k-validation-00.tar ..., drawn at random into shards,
                        KEY.cls, KEY.jpg, KEY.json (filename, height, label, width), and _info.json for timm's reader
    wds-clip/           as clip-benchmark's wds_imagenet1k and others: test/0.tar ..., test/nshards.txt,
                        classnames.txt, KEY.cls and KEY.jpg (or png)
    wds-webp/           the same with KEY.webp, lossless, which clip-benchmark makes if not told otherwise; the
                        pixels stay what they are, not the bytes
    rows/               with --rows: 64x64 pictures of about 2 kB made of the images with noise, in three files
    broken/             files with one thing wrong each, which its README.md says (make_broken_datasets.py)

The classes are those of data/imagenet.tsv by WordNet id, or 0 to 9. Where the layouts were looked up:
timm 1.0.31 (timm/data/readers/reader_wds.py), clip_benchmark 1.6.2 (webdataset_builder.py and
build_wds_dataset in datasets/builder.py), `datasets` 5.2 (io/parquet.py, Dataset.push_to_hub), and what the
hub's viewer shows of timm/imagenet-1k-wds.
"""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
ENDINGS = {".jpeg", ".jpg", ".png", ".webp"}
SHARDS = 3

# By pyarrow: types of the columns, and what `ParquetWriter` is told. `extra` puts other columns
# around the two; `swap` puts path before bytes in the struct; `no_path` leaves paths out.
VARIANTS = {
    "none": dict(rows=1000, compression="none", use_dictionary=False, data_page_version="1.0"),
    # As older versions of `datasets` wrote, and pyarrow does if told nothing: all columns compressed, and
    # dictionaries that grow too large for images, after which pages are plain.
    "snappy": dict(rows=100, compression="snappy", use_dictionary=True, data_page_version="1.0", label=pa.int32()),
    "zstd": dict(
        rows=None, compression="zstd", use_dictionary=["label", "image.path"], data_page_version="2.0",
        data_page_size=16 << 10, write_batch_size=16, write_page_index=True, label=pa.int16(), extra=True,
        swap=True, binary=pa.large_binary(), string=pa.large_string(),
    ),
    "gzip": dict(
        rows=7, compression="gzip", use_dictionary=False, data_page_version="2.0", label=pa.uint16(), no_path=True,
        store_schema=False, use_content_defined_chunking=True, column_encoding={"label": "DELTA_BINARY_PACKED"},
    ),
}  # fmt: skip
ABOUT_TABLE = ("label", "extra", "swap", "no_path", "binary", "string", "rows")


class Picture:
    """An image file of a class folder."""

    def __init__(self, file, label):
        self.file, self.label, self.folder = file, label, file.parent.name

    @property
    def data(self):
        return self.file.read_bytes()

    @property
    def key(self):
        """The name up to the first dot, where WebDataset divides names into key and field."""
        return self.file.name.split(".")[0]

    @property
    def field(self):
        return self.file.suffix.lower()[1:].replace("jpeg", "jpg")

    @property
    def name_on_hub(self):
        """As ILSVRC/imagenet-1k names files, with the class behind: ILSVRC2012_val_00000001_n01751748.JPEG."""
        return f"{self.file.stem}_{self.folder}{self.file.suffix}"


def read_folder(source):
    """All images, in the order of file names, and the names of all classes by index."""
    folders = sorted(folder.name for folder in source.iterdir() if folder.is_dir())
    table = "digits" if all(name.isdigit() and len(name) == 1 for name in folders) else "imagenet"
    rows = [line.split("\t") for line in (ROOT / "data" / f"{table}.tsv").read_text().splitlines()[1:]]
    index = {wnid or lemmas: int(number) for number, wnid, lemmas in rows}
    unknown = [name for name in folders if name not in index]
    if not folders or unknown:
        sys.exit(f"{source}: folders of classes are called by WordNet id or 0 to 9, not {', '.join(unknown[:3])}")
    files = [file for file in source.glob("*/*") if file.suffix.lower() in ENDINGS]
    pictures = sorted((Picture(file, index[file.parent.name]) for file in files), key=lambda p: p.file.name)
    if len({picture.key for picture in pictures}) < len(pictures):
        sys.exit(f"{source}: file names have to differ before their first dot, across folders as well")
    # There are two cranes; the hub calls the second one crane2, as the names of a ClassLabel have to differ.
    names = [lemmas for _, _, lemmas in rows]
    return pictures, [f"{name}2" if name in names[:i] else name for i, name in enumerate(names)]


def split(items, parts):
    """Into parts that follow each other and whose lengths differ by 1 at most, as Dataset.shard does."""
    ends = [len(items) * part // parts for part in range(parts + 1)]
    return [items[a:b] for a, b in zip(ends, ends[1:])]


def parquet_hf(pictures, classes, out):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=classes)})

    def write(part, file):
        images = [{"bytes": picture.data, "path": picture.name_on_hub} for picture in part]
        rows = {"image": images, "label": [picture.label for picture in part]}
        Dataset.from_dict(rows, features=features).to_parquet(file)

    (out / "data").mkdir(parents=True)
    for number, part in enumerate(split(pictures, SHARDS)):
        write(part, out / "data" / f"validation-{number:05}-of-{SHARDS:05}.parquet")
    write(pictures[:10], out / "data" / "train-00000-of-00001.parquet")


def table(pictures, classes, label=None, extra=False, swap=False, no_path=False, binary=None, string=None, **_):
    """An Arrow table with the features of Hugging Face in its metadata."""
    fields = [pa.field("bytes", binary or pa.binary()), pa.field("path", string or pa.string())]
    fields = fields[:1] if no_path else fields[::-1] if swap else fields
    images = [{"bytes": picture.data, "path": picture.name_on_hub} for picture in pictures]
    columns = {
        "image": pa.array([{f.name: image[f.name] for f in fields} for image in images], pa.struct(fields)),
        "label": pa.array([picture.label for picture in pictures], label or pa.int64()),
    }
    if extra:
        count = len(pictures)
        columns = {
            "id": pa.array([f"{i:08}" for i in range(count)]),
            "boxes": pa.array([[[0.0, 0.5]] * (i % 3) for i in range(count)], pa.list_(pa.list_(pa.float32()))),
            "label": columns["label"],
            "thumbnail": pa.array([None if i % 2 else b"no image" for i in range(count)], pa.binary()),
            "image": columns["image"],
            "meta": pa.array([{"source": {"flags": [True, None]}} if i % 5 else None for i in range(count)]),
        }
    features = {
        "image": {"_type": "Image"},
        "label": {"names": classes, "_type": "ClassLabel"},
    }
    made = pa.table(columns)
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet_by_pyarrow(pictures, classes, out, variant):
    out.mkdir()
    options = {name: value for name, value in variant.items() if name not in ABOUT_TABLE}
    for number, part in enumerate(split(pictures, 2)):
        made = table(part, classes, **variant)
        file = out / f"validation-{number:05}-of-00002.parquet"
        pq.write_table(made, file, row_group_size=variant["rows"] or len(part), **options)


def sidecar(picture, data):
    """What timm/imagenet-1k-wds has in KEY.json. The file name has its class folder, the key does not."""
    width, height = Image.open(io.BytesIO(data)).size
    name = f"{picture.folder}/{picture.file.name}"
    return {"filename": name, "height": height, "label": picture.label, "width": width}


def wds_timm(pictures, _, out):
    from webdataset import ShardWriter

    out.mkdir()
    order = np.random.default_rng(0).permutation(len(pictures))
    lengths = []
    # ShardWriter can only count; a writer per shard makes as many as there are to be.
    for number, part in enumerate(split(order, SHARDS)):
        pattern = str(out / "imagenet1k-validation-%02d.tar")
        with ShardWriter(pattern, maxcount=len(part) + 1, start_shard=number, verbose=0, mtime=0) as writer:
            for picture in (pictures[i] for i in part):
                data = picture.data
                sample = {"__key__": picture.key, "cls": picture.label, picture.field: data}
                writer.write({**sample, "json": sidecar(picture, data)})
        lengths.append(len(part))
    names = [f"imagenet1k-validation-{number:02}.tar" for number in range(SHARDS)]
    validation = {"name": "validation", "num_samples": len(pictures), "filenames": names, "shard_lengths": lengths}
    (out / "_info.json").write_text(json.dumps({"name": "imagenet1k", "splits": {"validation": validation}}))


def as_webp(picture):
    buffer = io.BytesIO()
    Image.open(picture.file).convert("RGB").save(buffer, "webp", lossless=True)
    return buffer.getvalue()


def wds_clip(pictures, classes, out, webp=False):
    from webdataset import ShardWriter

    (out / "test").mkdir(parents=True)
    ordered = sorted(pictures, key=lambda picture: (picture.label, picture.file.name))
    # More shards than ten, where there are images enough: 10.tar comes before 2.tar.
    count = max(1, -(-len(ordered) // 12))
    with ShardWriter(str(out / "test" / "%d.tar"), maxcount=count, verbose=0) as writer:
        for index, picture in enumerate(ordered):
            field, data = ("webp", as_webp(picture)) if webp else (picture.field, picture.data)
            writer.write({"__key__": f"s{index:07}", field: data, "cls": picture.label})
        shards = writer.shard
    (out / "test" / "nshards.txt").write_text(f"{shards}\n")
    (out / "classnames.txt").write_text("\n".join(name.split(",")[0] for name in classes) + "\n")
    (out / "zeroshot_classification_templates.txt").write_text("a photo of {c}.\n")


def parquet_converted(_, __, out):
    from datasets import load_dataset

    shards = sorted(map(str, out.parent.glob("wds-timm/*.tar")))
    (out / "default" / "validation").mkdir(parents=True)
    cache = out / "cache"
    made = load_dataset("webdataset", data_files={"validation": shards}, split="validation", cache_dir=str(cache))
    for number in range(2):
        made.shard(2, number, contiguous=True).to_parquet(out / "default" / "validation" / f"{number:04}.parquet")
    del made
    shutil.rmtree(cache)


def rows(pictures, classes, out, count):
    """Writes a row group at a time, so that a set of any size needs little memory."""
    out.mkdir()
    rng = np.random.default_rng(0)
    sources = [(np.asarray(Image.open(p.file).convert("L").resize((64, 64))), p.label) for p in pictures[:1000]]
    fields = [pa.field("bytes", pa.binary()), pa.field("path", pa.string())]
    schema = pa.schema([("image", pa.struct(fields)), ("label", pa.int64())])
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for number, part in enumerate(split(range(count), SHARDS)):
        file = out / f"validation-{number:05}-of-{SHARDS:05}.parquet"
        with pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as writer:
            for group in (part[i : i + 100] for i in range(0, len(part), 100)):
                images, labels = [], []
                for index in group:
                    pixels, label = sources[index % len(sources)]
                    noisy = pixels + rng.normal(0, 20, pixels.shape)
                    buffer = io.BytesIO()
                    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
                    images.append({"bytes": buffer.getvalue(), "path": f"digit_{index:08}.JPEG"})
                    labels.append(label)
                writer.write_table(pa.table([pa.array(images, schema.field(0).type), labels], schema=schema))


def broken(pictures, classes, out):
    from make_broken_datasets import make

    make(pictures[:24], classes, out)


def main():
    made = {"parquet-hf": parquet_hf}
    for name, variant in VARIANTS.items():
        made[f"parquet-{name}"] = lambda *args, variant=variant: parquet_by_pyarrow(*args, variant)
    made |= {"wds-timm": wds_timm, "wds-clip": wds_clip, "wds-webp": lambda *args: wds_clip(*args, webp=True)}
    made |= {"parquet-converted": parquet_converted, "broken": broken}

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of class folders")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder for the data sets, made anew one by one")
    parser.add_argument("--only", nargs="+", choices=made, metavar="FORM", help="not all: " + ", ".join(made))
    parser.add_argument("--rows", type=int, metavar="N", help="only a Parquet set of N rows in OUT/rows")
    args = parser.parse_args()

    pictures, classes = read_folder(args.source)
    if args.rows:
        made = {"rows": lambda *arguments: rows(*arguments, args.rows)}
    for name, make in made.items():
        if args.only and name not in args.only:
            continue
        out = args.out / name
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        make(pictures, classes, out)
        files = [file for file in out.rglob("*") if file.is_file()]
        print(f"{out}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
