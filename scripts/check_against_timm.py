"""Compares `qlnet eval` with timm: top-1, top-5 and every single prediction, and the time both take.

    pip install torch numpy pillow safetensors timm
    cargo build --release
    python scripts/check_against_timm.py --data DIR --weights FILE      ImageNet's classes
    python scripts/check_against_timm.py --data DIR --model qlnet-digits

DIR has a folder per class. The images go through timm's own dataset, transforms, loader and accuracy
function and this project's PyTorch network (reference/qlnet.py), as timm's validate.py would run them,
and through `qlnet eval`. The exit code is 1 unless all most likely classes are the same, or differ
only where PyTorch's own two best logits are closer than --tie.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
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


def run_timm(args, weights, folder):
    """Predictions by path, accuracies, and seconds from the first batch on."""
    size = INPUT_SIZE[args.model]
    torch.set_num_threads(args.threads)
    net = from_file(weights)
    if args.channels_last:
        net = net.to(memory_format=torch.channels_last)
    dataset = timm.data.create_dataset("", root=str(args.data), class_map=class_map(args.model, folder))
    loader = timm.data.create_loader(
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
    top1, top5 = timm.utils.AverageMeter(), timm.utils.AverageMeter()
    predictions, index = {}, 0  # (five classes, their probabilities, gap between the two best logits, label)
    start = time.perf_counter()
    with torch.inference_mode():
        for images, target in loader:
            if args.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            logits = net(images)
            acc1, acc5 = timm.utils.accuracy(logits, target, topk=(1, 5))
            top1.update(acc1.item(), len(target))
            top5.update(acc5.item(), len(target))
            p, classes = logits.softmax(dim=1).topk(5)
            gap = logits.topk(2).values
            for row in range(len(target)):
                path = str(Path(dataset.filename(index, absolute=True)).relative_to(args.data))
                predictions[path] = (classes[row].tolist(), p[row].tolist(), (gap[row, 0] - gap[row, 1]).item(), target[row].item())
                index += 1
    return predictions, top1.avg / 100, top5.avg / 100, time.perf_counter() - start


def run_qlnet(args, folder):
    file = folder / "predictions.csv"
    command = [args.qlnet, "eval", "--data", args.data, "--model", args.model, "--json"]
    command += ["--predictions", file, "--batch-size", args.batch_size, "--threads", args.threads]
    if args.weights:
        command += ["--weights", args.weights]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines)), json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=INPUT_SIZE, default="qlnet-50-v0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--qlnet", type=Path, default=ROOT / "target" / "release" / "qlnet")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="of timm's loader")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's faster layout")
    parser.add_argument("--tie", type=float, default=0.1, help="logits that are closer may change places")
    args = parser.parse_args()
    if args.weights is None and args.model != "qlnet-digits":
        parser.error("--weights is needed, but for qlnet-digits")
    weights = args.weights or ROOT / "models" / "qlnet-digits.safetensors"

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows, ours = run_qlnet(args, folder)
        theirs, top1, top5, seconds = run_timm(args, weights, folder)

    assert len(rows) == len(theirs) == ours["images"], (len(rows), len(theirs), ours["images"])
    largest, different, order, serious = 0.0, [], 0, 0
    for row in rows:
        classes, p, gap, label = theirs[row["path"]]
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
    sys.exit(0 if serious == 0 and all(near) else 1)


if __name__ == "__main__":
    main()
