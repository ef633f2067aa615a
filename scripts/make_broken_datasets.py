"""Files of Parquet and WebDataset with one thing wrong each, for make_datasets.py; README.md says what."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq


def images_of(pictures):
    """The column as Hugging Face's Image feature stores it."""
    rows = [{"bytes": picture.data, "path": picture.name_on_hub} for picture in pictures]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def parquet_files(pictures, classes, out):
    """Yields the name of each file and what is wrong with it."""
    images, labels = images_of(pictures), pa.array([picture.label for picture in pictures])
    row = len(pictures) // 2

    def put(name, wrong, image=images, label=labels, features=False, **columns):
        named = {"image": image, "label": label, **columns}
        table = pa.table({name: column for name, column in named.items() if column is not None})
        if features:
            types = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": types}})})
        pq.write_table(table, out / f"{name}.parquet", row_group_size=16)
        return f"{name}.parquet", wrong

    def changed(column, value):
        rows = column.to_pylist()
        rows[row] = value
        return pa.array(rows, column.type)

    path = pictures[row].name_on_hub
    yield put("good", "nothing: what the others were made of")
    yield put("null-bytes", f"row {row} has a path but no bytes", changed(images, {"bytes": None, "path": path}))
    yield put("null-image", f"row {row} has no image at all (null)", changed(images, None))
    yield put("empty-bytes", f"row {row} has 0 bytes", changed(images, {"bytes": b"", "path": path}))
    yield put("not-a-picture", f"row {row} has bytes that are no picture", changed(images, {"bytes": b"\0" * 99, "path": path}))
    yield put("only-paths", "all rows have paths only: the files are elsewhere", pa.array([{"bytes": None, "path": p.name_on_hub} for p in pictures], images.type))
    yield put("null-label", f"row {row} has no label (null)", label=changed(labels, None))
    yield put("label-too-large", f"row {row} has the label {len(classes)}, one more than the largest", label=changed(labels, len(classes)), features=True)
    yield put("label-negative", f"row {row} has the label -1", label=changed(labels, -1))
    yield put("test-split", "all labels are -1, as in the hub's test split", label=pa.array([-1] * len(labels)), features=True)
    yield put("label-string", "labels are strings", label=labels.cast(pa.string()))
    yield put("label-float", "labels are floats", label=labels.cast(pa.float64()))
    yield put("label-list", "labels are lists", label=pa.array([[picture.label] for picture in pictures]))
    yield put("no-label", "there is no label", label=None)
    yield put("no-image", "there is no image, only a text", None, text=pa.array([p.file.name for p in pictures]))
    yield put("image-binary", "the image is a plain binary column, which some people write", pa.array([p.data for p in pictures]))
    yield put("image-list", "the image is a list of pixels", pa.array([[0, 127, 255]] * len(pictures), pa.list_(pa.uint8())))
    yield put("two-images", "there are two columns of images", second=images)
    yield put("no-rows", "there are no rows", images[:0], labels[:0])

    whole = (out / "good.parquet").read_bytes()
    (out / "cut-short.parquet").write_bytes(whole[: len(whole) * 6 // 10])
    yield "cut-short.parquet", "the last 40 % are missing, and with them the footer"
    (out / "cut-before.parquet").write_bytes(whole[:4] + whole[len(whole) // 3 :])
    yield "cut-before.parquet", "a third is missing at the beginning, so that offsets in the footer point beyond it"
    hurt = bytearray(whole)
    # The first bytes behind the magic number are the header of the first page.
    hurt[4:24] = b"\xff" * 20
    (out / "page-header.parquet").write_bytes(hurt)
    yield "page-header.parquet", "the header of the first page is overwritten"
    hurt = bytearray(whole)
    hurt[-8:-4] = (1 << 30).to_bytes(4, "little")
    (out / "footer-length.parquet").write_bytes(hurt)
    yield "footer-length.parquet", "the footer says that it is 1 GiB long"
    (out / "html.parquet").write_text("<!DOCTYPE html>\n<title>Access to this dataset is restricted</title>\n")
    yield "html.parquet", "a web page, as comes of a download without access"
    (out / "pointer.parquet").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(whole)}\n")
    yield "pointer.parquet", "a pointer of Git LFS, as comes of git clone without git-lfs"


def samples_of(pictures):
    """Members of a shard, as timm/imagenet-1k-wds has them: a list of names and bytes for each sample."""
    return [
        [
            (f"{p.key}.cls", str(p.label).encode()),
            (f"{p.key}.{p.field}", p.data),
            (f"{p.key}.json", json.dumps({"filename": f"{p.folder}/{p.file.name}", "label": p.label}).encode()),
        ]
        for p in pictures
    ]


def shard(samples):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (member for sample in samples for member in sample):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def shards(pictures, classes, out):
    """Yields the name of each shard and what is wrong with it."""
    samples = samples_of(pictures)
    at = len(samples) // 2
    label, image, about = samples[at]
    key = pictures[at].key

    def put(name, wrong, replaced, more=()):
        (out / f"{name}.tar").write_bytes(shard([*samples[:at], *replaced, *samples[at + 1 :], *more]))
        return f"{name}.tar", wrong

    yield put("good", "nothing: what the other shards were made of", [samples[at]])
    yield put("no-cls", f"sample {key} has no .cls but a label in its .json", [[image, about]])
    yield put("no-label", f"sample {key} has no label at all", [[image]])
    yield put("no-image", f"sample {key} has no image", [[label, about]])
    yield put("labels-differ", f"sample {key} has another label in .json than in .cls", [[label, image, (about[0], json.dumps({"label": pictures[at].label + 1}).encode())]])
    yield put("bad-cls", f"the .cls of sample {key} is no number", [[(label[0], b"tench"), image, about]])
    yield put("cls-newline", f"nothing: the .cls of sample {key} ends with a new line", [[(label[0], label[1] + b"\n"), image, about]])
    yield put("cls-negative", f"the .cls of sample {key} is -1", [[(label[0], b"-1"), image, about]])
    yield put("cls-too-large", f"the .cls of sample {key} is {len(classes)}, one more than the largest", [[(label[0], str(len(classes)).encode()), image, about]])
    yield put("bad-json", f"the .json of sample {key} is no JSON (its .cls is right)", [[label, image, (about[0], b'{"label": ')]])
    yield put("bad-json-only", f"the .json of sample {key} is no JSON, and there is no .cls", [[image, (about[0], b'{"label": ')]])
    yield put("two-images", f"sample {key} has two images", [[label, image, (f"{key}.webp", image[1]), about]])
    yield put("twice-in-a-row", f"sample {key} comes twice, one after the other", [samples[at], samples[at]])
    yield put("twice-apart", f"sample {key} comes twice, the second time at the end", [samples[at]], [samples[at]])
    yield put("apart", f"nothing that tar forbids: the .cls of sample {key} is at the end, away from its image", [[image]], [[label]])
    yield put("not-a-picture", f"the image of sample {key} is no picture", [[label, (image[0], b"\0" * 99), about]])
    yield put("other-members", "nothing: a folder's README and __meta__ are beside the samples", [samples[at], [("README", b"x"), ("__meta__/about.txt", b"x"), ("._hidden.jpg", b"x")]])
    whole = shard(samples)
    (out / "cut-short.tar").write_bytes(whole[: whole.index(image[1]) + len(image[1]) // 2])
    yield "cut-short.tar", f"ends in the middle of sample {key}"
    (out / "no-end.tar").write_bytes(whole[: whole.index(samples[-1][2][1]) // 512 * 512 + 512])
    yield "no-end.tar", "nothing is missing but the zeros that end an archive"
    (out / "empty.tar").write_bytes(shard([]))
    yield "empty.tar", "there are no members"


def subset_of_classes(pictures, classes, out):
    """Labels that count only the classes that there are, which looks right and is not."""
    present = sorted({p.label for p in pictures})[1:]
    samples = [
        [(f"s{i:07}.cls", str(present.index(p.label)).encode()), (f"s{i:07}.{p.field}", p.data)]
        for i, p in enumerate(p for p in pictures if p.label in present)
    ]
    (out / "subset-of-classes" / "test").mkdir(parents=True)
    (out / "subset-of-classes" / "test" / "0.tar").write_bytes(shard(samples))
    (out / "subset-of-classes" / "test" / "nshards.txt").write_text("1\n")
    names = [classes[label].split(",")[0] for label in present]
    (out / "subset-of-classes" / "classnames.txt").write_text("\n".join(names) + "\n")
    yield (
        "subset-of-classes",
        f"labels number the {len(present)} classes of classnames.txt, not the model's {len(classes)}, "
        "as clip-benchmark's wds_imagenet-a, -r and -o do",
    )


def make(pictures, classes, out):
    """Writes all files into `out`, and README.md with a line for each."""
    out.mkdir()
    parts = (parquet_files, shards, subset_of_classes)
    lines = [line for part in parts for line in part(pictures, classes, out)]
    text = "".join(f"* `{name}`: {wrong}\n" for name, wrong in lines)
    (out / "README.md").write_text(f"{len(pictures)} images in each file, and one thing wrong (made by scripts/make_datasets.py):\n\n{text}")
