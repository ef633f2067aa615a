"""Compares `qlnet eval` with timm: top-1, top-5 and every single prediction, and the time both take.

    pip install torch numpy pillow safetensors timm datasets webdataset pyarrow
    cargo build --release
    python scripts/check_against_timm.py --data DIR --weights FILE      ImageNet's classes
    python scripts/check_against_timm.py --data DIR --model qlnet-digits
    python scripts/check_against_timm.py --data OUT/parquet-hf --form parquet --model qlnet-digits --folder DIR
    python scripts/check_against_timm.py --data 'OUT/wds-timm/imagenet1k-validation-{00..02}.tar' --form wds ...

DIR has a folder per class. OUT is what make_datasets.py made of it, or the real thing. The images go
through timm's own dataset, transforms, loader and accuracy function and this project's PyTorch network
(reference/qlnet.py), as timm's validate.py would run them, and through `qlnet eval`. The exit code is 1
unless all most likely classes are the same, or differ only where PyTorch's own two best logits are closer
than --tie. With --folder, timm also has to predict the same for the same files in class folders; --only-timm
leaves `qlnet` out.

--form parquet is timm's reader `hfds/` and --form wds its reader `wds/`. Both take the label as it is
stored, so that neither gets a class map.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import timm.data
import timm.utils
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "reference"))

from qlnet import from_file  # noqa: E402

# As the registry of models (src/weights/registry.rs) has them.
INPUT_SIZE = {"qlnet-50-v0": 224, "qlnet-10m": 224, "qlnet-digits": 64}
CROP_PCT = {"qlnet-50-v0": 0.95, "qlnet-10m": 0.95, "qlnet-digits": 1.0}


def class_map(model, folder):
    """timm numbers the folders of a subset from 0; here they get the model's own class indices."""
    table = "digits" if model == "qlnet-digits" else "imagenet"
    rows = [line.split("\t") for line in (ROOT / "data" / f"{table}.tsv").read_text().splitlines()[1:]]
    names = [wnid or label for _, wnid, label in rows]
    file = folder / "classes.txt"
    file.write_text("\n".join(names) + "\n")
    return str(file)


def from_folder(data, args, scratch):
    """timm's dataset of class folders, and the paths of its images in its order."""
    dataset = timm.data.create_dataset("", root=str(data), class_map=class_map(args.model, scratch))
    return dataset, [str(Path(name).relative_to(data)) for name in dataset.filenames(absolute=True)]


def from_parquet(data, args, scratch):
    """timm's dataset of local Parquet files, and what qlnet calls its images: FILE/ROW/NAME.

    `datasets` sorts the files that belong to a split by name and keeps the order of rows, so that the
    images are known by the number of rows of each file. That this is the order is checked by the names in the
    files, which timm has from `datasets` and this function from pyarrow.
    """
    import pyarrow.parquet as pq

    found = sorted(file for file in data.rglob("*.parquet") if args.split in str(file.relative_to(data)))
    if not found:
        sys.exit(f"{data}: a folder is needed, with Parquet files that have {args.split!r} in their path")
    schema = pq.read_schema(found[0])
    image = next(name for name in ("image", "jpg", "png", "webp") if name in schema.names)
    label = next(name for name in ("label", "cls") if name in schema.names)
    has_path = any(field.name == "path" for field in schema.field(image).type)
    names, in_files = [], []
    for file in found:
        rows = pq.ParquetFile(file).metadata.num_rows
        paths = [None] * rows
        if has_path:
            paths = pq.read_table(file, columns=[f"{image}.path"]).flatten().column(0).to_pylist()
        width = len(str(rows - 1))
        in_files += paths
        names += [f"{file.name}/{row:0{width}}" + (f"/{path}" if path else "") for row, path in enumerate(paths)]
    dataset = timm.data.create_dataset(
        f"hfds/{data.resolve()}", root=str(scratch / "hf-cache"), split=args.split, input_key=image, target_key=label
    )
    if has_path:  # `dataset.filename` would read each image as well; this reads only the names
        chunks = dataset.reader.dataset.data.column(image).chunks
        if [path for chunk in chunks for path in chunk.field("path").to_pylist()] != in_files:
            sys.exit("timm has the images in another order than the files")
    return dataset, names


def shard_files(data):
    """The shards of a folder in the order of their names, or those of a pattern in its own."""
    if data.is_dir():
        return sorted(data.glob("*.tar")) or sorted(data.glob("*/*.tar"))
    from braceexpand import braceexpand

    return [Path(file) for file in braceexpand(str(data))]


def from_shards(data, args, _):
    """timm's dataset of shards, and what qlnet calls its images: SHARD.tar/KEY.jpg, in the order in which
    timm's loader delivers them.

    timm's reader yields no names. But it goes through a shard from beginning to end, without shuffling
    when not training; worker w of n reads every n-th shard from the w-th on, and PyTorch's loader takes a
    batch of each worker in turn, leaving out those that have no more. The labels, compared one by one, and
    the predictions show whether that is so.
    """
    shards = shard_files(data)
    if (shards[0].parent / "_info.json").exists() and data.is_dir():
        split = args.split
    else:
        split = "::".join(shard.name for shard in shards)
    dataset = timm.data.create_dataset("wds/", root=str(shards[0].parent), split=split, num_samples=args.images)
    workers = max(1, args.workers)
    queues = []
    for worker in range(min(workers, len(shards))):
        names = [name for shard in shards[worker::workers] for name in images_of(shard)]
        queues.append([names[i : i + args.batch_size] for i in range(0, len(names), args.batch_size)])
    ordered = []
    while queues:
        ordered += [name for queue in queues for name in queue.pop(0)]
        queues = [queue for queue in queues if queue]
    return dataset, ordered


def images_of(shard):
    """The images of a shard by shard and name, those of one key after the other."""
    with tarfile.open(shard) as tar:
        names = [member.name for member in tar if member.isfile()]
    return [f"{shard.name}/{name}" for name in names if name.lower().rsplit(".", 1)[-1] in ("jpg", "png", "webp")]


READERS = {"folder": from_folder, "parquet": from_parquet, "wds": from_shards}


def loader_of(dataset, args):
    """timm's loader, as its validate.py would have it."""
    size = INPUT_SIZE[args.model]
    return timm.data.create_loader(
        dataset,
        input_size=(3, size, size),
        batch_size=args.batch_size,
        use_prefetcher=False,
        interpolation="bicubic",
        mean=timm.data.IMAGENET_DEFAULT_MEAN,
        std=timm.data.IMAGENET_DEFAULT_STD,
        num_workers=args.workers,
        crop_pct=CROP_PCT[args.model],
        crop_mode="center",
        device=torch.device("cpu"),
    )


def run_timm(args, weights, folder, form="folder", data=None):
    """Predictions by path, accuracies, and seconds from the first batch on."""
    torch.set_num_threads(args.threads)
    net = from_file(weights)
    if args.channels_last:
        net = net.to(memory_format=torch.channels_last)
    dataset, names = READERS[form](data or args.data, args, folder)
    top1, top5 = timm.utils.AverageMeter(), timm.utils.AverageMeter()
    predictions, index = {}, 0  # (five classes, their probabilities, gap between the two best logits, label)
    start = time.perf_counter()
    with torch.inference_mode():
        for images, target in loader_of(dataset, args):
            if args.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            logits = net(images)
            acc1, acc5 = timm.utils.accuracy(logits, target, topk=(1, 5))
            top1.update(acc1.item(), len(target))
            top5.update(acc5.item(), len(target))
            p, classes = logits.softmax(dim=1).topk(5)
            gap = logits.topk(2).values
            for row in range(len(target)):
                assert index < len(names), f"timm reads more images than the {len(names)} that there are"
                found = (classes[row].tolist(), p[row].tolist(), (gap[row, 0] - gap[row, 1]).item(), target[row].item())
                predictions[names[index]] = found
                index += 1
    # timm leaves out what it cannot read of a shard, with a warning.
    assert index == len(names) == len(predictions), f"timm has read {index} of {len(names)} images"
    return predictions, top1.avg / 100, top5.avg / 100, time.perf_counter() - start


def run_qlnet(args, folder, extra=()):
    file = folder / "predictions.csv"
    file.unlink(missing_ok=True)
    command = [args.qlnet, "eval", "--data", args.data, "--model", args.model, "--json"]
    command += ["--predictions", file, "--batch-size", args.batch_size, "--threads", args.threads, *extra]
    if args.weights:
        command += ["--weights", args.weights]
    result = subprocess.run([str(part) for part in command], check=False, stdout=subprocess.PIPE)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {result.returncode}")
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines)), json.loads(result.stdout)


def from_container(path):
    """A path from the Parquet file or the shard on, whatever folder was given."""
    parts = Path(path).parts
    inside = next((i for i, part in enumerate(parts) if part.endswith((".parquet", ".tar"))), 0)
    return "/".join(parts[inside:])


def same_as_in_folder(theirs, folder):
    """Prints timm's predictions in this form beside those in class folders, by file name."""
    by_name = {}
    for path, found in theirs.items():
        by_name[Path(path).name] = by_name[Path(path).stem] = found
    pairs, how = [], "by name"
    for path, found in folder.items():
        file = Path(path)
        names = [f"{file.stem}_{file.parent.name}{file.suffix}", file.name, file.stem]
        pairs += [(by_name[name], found) for name in names if name in by_name][:1]
    if not pairs:  # wds-clip/ has numbers instead of names, and parquet-gzip/ nothing
        how = "by label and predictions"
        order = [sorted(found.values(), key=lambda f: (f[3], f[0], f[1])) for found in (theirs, folder)]
        pairs = list(zip(*order))
    different = sum(a[0][0] != b[0][0] or a[3] != b[3] for a, b in pairs)
    largest = max(abs(p - q) for a, b in pairs for p, q in zip(a[1], b[1]))
    print(f"timm in class folders      {len(pairs):,} images compared {how}, ", end="")
    print(f"{different} with another label or most likely class, largest difference of a probability {largest:.2g}")
    return len(pairs) == len(theirs) == len(folder) and different == 0


def report(args, rows, ours, theirs, top1, top5, seconds):
    """Prints what differs, and says whether it is as it should be."""
    assert len(rows) == len(theirs) == ours["images"], (len(rows), len(theirs), ours["images"])
    largest, different, order, serious = 0.0, [], 0, 0
    for row in rows:
        path = row["path"] if args.form == "folder" else from_container(row["path"])
        classes, p, gap, label = theirs[path]
        assert int(row["label"]) == label, f"{row['path']}: label {row['label']} here, {label} in timm"
        found = [int(row[f"top{k}"]) for k in range(1, 6)]
        difference = max(abs(float(row[f"p{k}"]) - value) for k, value in enumerate(p, 1))
        largest = max(largest, difference if math.isfinite(difference) else math.inf)
        order += found != classes
        if found[0] != classes[0]:
            different.append(f"{row['path']}: {found[0]} here, {classes[0]} in PyTorch, logits {gap:.2g} apart")
            serious += gap > args.tie
    print(f"images                     {len(rows):,}")
    print(f"top-1                      {ours['top1']:.4%} here, {top1:.4%} in timm")
    print(f"top-5                      {ours['top5']:.4%} here, {top5:.4%} in timm")
    print(f"another most likely class  {len(different)}")
    print(f"another order of the five  {order}")
    print(f"largest difference of a probability   {largest:.2g}")
    speed = len(rows) / seconds
    print(f"images per second          {ours['images_per_second']:.1f} here, {speed:.1f} in timm and PyTorch", end="")
    print(f" ({ours['images_per_second'] / speed:.2f} times)")
    for line in different[:20]:
        print(line)
    # As many images may count otherwise as have other predictions.
    near = [abs(ours["top1"] - top1) * len(rows) < len(different) + 0.5, abs(ours["top5"] - top5) * len(rows) < order + 0.5]
    return serious == 0 and all(near)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--form", choices=READERS, default="folder")
    parser.add_argument("--split", default="validation", help="of Parquet files and shards with an _info.json")
    parser.add_argument("--images", type=int, help="in shards, where timm needs to be told")
    parser.add_argument("--folder", type=Path, help="the same files in class folders")
    parser.add_argument("--only-timm", action="store_true")
    parser.add_argument("--model", choices=INPUT_SIZE, default="qlnet-50-v0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--qlnet", type=Path, default=ROOT / "target" / "release" / "qlnet")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="of timm's loader")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's faster layout")
    parser.add_argument("--tie", type=float, default=0.1, help="logits that are closer may change places")
    args = parser.parse_args()
    args.qlnet = args.qlnet.resolve() if args.qlnet.exists() else args.qlnet
    if args.weights is None and args.model != "qlnet-digits":
        parser.error("--weights is needed, but for qlnet-digits")
    weights = args.weights or ROOT / "models" / "qlnet-digits.safetensors"

    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ours = None if args.only_timm else run_qlnet(args, folder)
        theirs, *accuracies_and_seconds = run_timm(args, weights, folder, args.form, args.data)
        if ours:
            good = report(args, *ours, theirs, *accuracies_and_seconds)
        if args.folder:
            in_folder = run_timm(args, weights, folder, "folder", args.folder)
            good = same_as_in_folder(theirs, in_folder[0]) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
