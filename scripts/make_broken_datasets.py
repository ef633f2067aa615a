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


def write(file, image, label, classes=None, **columns):
    """A Parquet file of two row groups; with `classes`, the label is a ClassLabel of Hugging Face."""
    named = {"image": image, "label": label, **columns}
    table = pa.table({name: column for name, column in named.items() if column is not None})
    if classes:
        types = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": types}})})
    pq.write_table(table, file, row_group_size=16)


def changed(column, row, value):
    rows = column.to_pylist()
    rows[row] = value
    return pa.array(rows, column.type)


def images(pictures, classes, out):
    """Yields the name of each Parquet file in which images are wrong, and what is wrong with it."""
    images, labels = images_of(pictures), pa.array([picture.label for picture in pictures])
    row = len(pictures) // 2
    path = pictures[row].name_on_hub

    def put(name, wrong, image, label=labels, **columns):
        write(out / f"{name}.parquet", image, label, **columns)
        return f"{name}.parquet", wrong

    def instead(value):
        return changed(images, row, value)

    yield put("good", "nothing: what the others were made of", images)
    yield put("null-bytes", f"row {row} has a path but no bytes", instead({"bytes": None, "path": path}))
    yield put("null-image", f"row {row} has no image at all (null)", instead(None))
    yield put("empty-bytes", f"row {row} has 0 bytes", instead({"bytes": b"", "path": path}))
    yield put("not-a-picture", f"row {row} has bytes that are no picture", instead({"bytes": b"\0" * 99, "path": path}))
    paths = pa.array([{"bytes": None, "path": p.name_on_hub} for p in pictures], images.type)
    yield put("only-paths", "all rows have paths only: the files are elsewhere", paths)
    names = pa.array([p.file.name for p in pictures])
    yield put("no-image", "there is no image, only a text", None, text=names)
    plain = pa.array([p.data for p in pictures])
    yield put("image-binary", "the image is a plain binary column, which some people write", plain)
    pixels = pa.array([[0, 127, 255]] * len(pictures), pa.list_(pa.uint8()))
    yield put("image-list", "the image is a list of pixels", pixels)
    yield put("two-images", "there are two columns of images", images, second=images)
    yield put("no-rows", "there are no rows", images[:0], labels[:0])


def labels(pictures, classes, out):
    """Yields the name of each Parquet file in which labels are wrong, and what is wrong with it."""
    images, labels = images_of(pictures), pa.array([picture.label for picture in pictures])
    row = len(pictures) // 2

    def put(name, wrong, label, **options):
        write(out / f"{name}.parquet", images, label, **options)
        return f"{name}.parquet", wrong

    yield put("null-label", f"row {row} has no label (null)", changed(labels, row, None))
    large = changed(labels, row, len(classes))
    yield put("label-too-large", f"row {row} has the label {len(classes)}, one too many", large, classes=classes)
    yield put("label-negative", f"row {row} has the label -1", changed(labels, row, -1))
    hidden = pa.array([-1] * len(labels))
    yield put("test-split", "all labels are -1, as in the hub's test split", hidden, classes=classes)
    yield put("label-string", "labels are strings", labels.cast(pa.string()))
    yield put("label-float", "labels are floats", labels.cast(pa.float64()))
    yield put("label-list", "labels are lists", pa.array([[picture.label] for picture in pictures]))
    yield put("no-label", "there is no label", None)


def bytes_of_parquet(pictures, classes, out):
    """Yields the name of each file that was hurt after it was written, or never was Parquet."""
    whole = (out / "good.parquet").read_bytes()

    def put(name, wrong, data):
        (out / f"{name}.parquet").write_bytes(data)
        return f"{name}.parquet", wrong

    missing = "the last 40 % are missing, and with them the footer"
    yield put("cut-short", missing, whole[: len(whole) * 6 // 10])
    missing = "a third is missing at the beginning, so that offsets in the footer point beyond it"
    yield put("cut-before", missing, whole[:4] + whole[len(whole) // 3 :])
    # The first bytes behind the magic number are the header of the first page.
    yield put("page-header", "the header of the first page is overwritten", whole[:4] + b"\xff" * 20 + whole[24:])
    large = whole[:-8] + (1 << 30).to_bytes(4, "little") + whole[-4:]
    yield put("footer-length", "the footer says that it is 1 GiB long", large)
    page = b"<!DOCTYPE html>\n<title>Access to this dataset is restricted</title>\n"
    yield put("html", "a web page, as comes of a download without access", page)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(whole)}\n"
    yield put("pointer", "a pointer of Git LFS, as comes of git clone without git-lfs", pointer.encode())


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


def samples(pictures, classes, out):
    """Yields the name of each shard with a wrong sample, and what is wrong with it."""
    samples = samples_of(pictures)
    at = len(samples) // 2
    good = label, image, about = samples[at]
    key = pictures[at].key

    def put(name, wrong, *replaced, more=()):
        (out / f"{name}.tar").write_bytes(shard([*samples[:at], *replaced, *samples[at + 1 :], *more]))
        return f"{name}.tar", wrong

    def cls(text):
        return [(label[0], text.encode()), image, about]

    def about_is(text):
        return (about[0], text.encode())

    yield put("good", "nothing: what the other shards were made of", good)
    yield put("no-cls", f"sample {key} has no .cls but a label in its .json", [image, about])
    yield put("no-label", f"sample {key} has no label at all", [image])
    yield put("no-image", f"sample {key} has no image", [label, about])
    other = json.dumps({"label": (pictures[at].label + 1) % len(classes)})
    yield put("labels-differ", f"sample {key} has another label in .json than in .cls", [label, image, about_is(other)])
    yield put("bad-cls", f"the .cls of sample {key} is no number", cls("tench"))
    yield put("cls-newline", f"nothing: the .cls of sample {key} ends with a new line", cls(f"{pictures[at].label}\n"))
    yield put("cls-negative", f"the .cls of sample {key} is -1", cls("-1"))
    yield put("cls-too-large", f"the .cls of sample {key} is {len(classes)}, one too many", cls(str(len(classes))))
    no_json = about_is('{"label": ')
    yield put("bad-json", f"the .json of sample {key} is no JSON (its .cls is right)", [label, image, no_json])
    yield put("bad-json-only", f"the .json of sample {key} is no JSON, and there is no .cls", [image, no_json])
    yield put("two-images", f"sample {key} has two images", [label, image, (f"{key}.webp", image[1]), about])
    yield put("twice-in-a-row", f"sample {key} comes twice, one after the other", good, good)
    yield put("twice-apart", f"sample {key} comes twice, the second time at the end", good, more=[good])
    yield put("apart", f"the .cls of sample {key} is at the end, away from its image", [image], more=[[label]])
    yield put("not-a-picture", f"the image of sample {key} is no picture", [label, (image[0], b"\0" * 99), about])
    beside = [("README", b"x"), ("__meta__/about.txt", b"x"), ("._hidden.jpg", b"x")]
    yield put("other-members", "nothing: a README, __meta__/ and ._hidden.jpg are beside the samples", good, beside)


def bytes_of_shards(pictures, classes, out):
    """Yields the name of each shard that was cut, and where."""
    samples = samples_of(pictures)
    whole = shard(samples)
    at = len(samples) // 2
    image, last = samples[at][1][1], samples[-1][2][1]
    (out / "cut-short.tar").write_bytes(whole[: whole.index(image) + len(image) // 2])
    yield "cut-short.tar", f"ends in the middle of sample {pictures[at].key}"
    (out / "no-end.tar").write_bytes(whole[: whole.index(last) // 512 * 512 + 512])
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
    wrong = f"labels number the {len(present)} classes of classnames.txt, not the model's {len(classes)}, "
    yield "subset-of-classes", wrong + "as in clip-benchmark's wds_imagenet-a, -r and -o"


def make(pictures, classes, out):
    """Writes all files into `out`, and README.md with a line for each."""
    out.mkdir()
    parts = (images, labels, bytes_of_parquet, samples, bytes_of_shards, subset_of_classes)
    lines = [line for part in parts for line in part(pictures, classes, out)]
    head = f"{len(pictures)} images in each file, and one thing wrong (made by scripts/make_datasets.py):\n\n"
    (out / "README.md").write_text(head + "".join(f"* `{name}`: {wrong}\n" for name, wrong in lines))
