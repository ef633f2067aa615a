"""Packs the digits that qlnet-digits was not trained on, and what PyTorch computes for each of them.

    pip install torch numpy pillow scikit-learn safetensors
    python reference/make_held_out.py

Writes samples/digits-held-out.tar, 360 PNG images of 8x8 pixels in a folder per digit (UCI handwritten
digits, CC BY 4.0), and tests/fixtures/digits-held-out.csv with the columns that `qlnet eval
--predictions` writes, computed in float32 from models/qlnet-digits.safetensors.
"""

import csv
import io
import tarfile
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from qlnet import from_file
from train_digits import dataset, enlarge, normalise

ROOT = Path(__file__).resolve().parent.parent


def main():
    images, labels, _, held_out = dataset()
    archive = ROOT / "samples" / "digits-held-out.tar"
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in sorted(held_out, key=lambda index: (labels[index], index)):
            png = io.BytesIO()
            Image.fromarray(images[index]).save(png, "PNG", optimize=True)
            entry = tarfile.TarInfo(f"{labels[index]}/{index:04}.png")
            entry.size = png.tell()
            png.seek(0)
            tar.addfile(entry, png)

    net = from_file(ROOT / "models" / "qlnet-digits.safetensors")
    with torch.no_grad():
        logits = net(normalise(torch.tensor(enlarge(images[held_out])).float() / 255))
    p = logits.softmax(1)
    table = ROOT / "tests" / "fixtures" / "digits-held-out.csv"
    right = 0
    with open(table, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", *(f"top{k}" for k in range(1, 6)), *(f"p{k}" for k in range(1, 6)), "rank", "loss"])
        for place in sorted(range(len(held_out)), key=lambda i: (labels[held_out[i]], held_out[i])):
            label = int(labels[held_out[place]])
            order = p[place].argsort(descending=True, stable=True)
            rank = (order == label).nonzero().item() + 1
            loss = F.cross_entropy(logits[place], torch.tensor(label)).item()
            numbers = [f"{value:.7g}" for value in p[place][order[:5]].tolist()]
            path = f"{label}/{held_out[place]:04}.png"
            rows.writerow([path, label, *order[:5].tolist(), *numbers, rank, f"{loss:.7g}"])
            right += rank == 1
    print(f"{right} of {len(held_out)} right; {archive.stat().st_size:,} and {table.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
