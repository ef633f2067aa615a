"""Compares `qlnet eval` on the other ImageNets with each one's protocol in PyTorch.

    pip install torch numpy pillow safetensors
    cargo build --release
    python scripts/check_imagenets.py --weights qlnet-50-v0.pth.tar --pictures DIR [--validate validate.py]

Makes small sets in the form of the validation set (with ReaL's labels), ImageNet-V2, ImageNet-A, ImageNet-R,
ImageNet-Sketch and ImageNet-C out of the pictures in DIR, distorted at random; where a picture's name begins with
a WordNet id, that is its label, and others get labels at random. Each set is scored by a few lines that follow what
its authors publish, on this project's PyTorch network (reference/qlnet.py), and by `qlnet eval`. The exit code is 1
unless all accuracies are the same, and losses and corruption errors but for rounding. --validate names timm's
validate.py, which is in its repository and not in its package: then that scores ImageNet-A too.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "reference"))

from qlnet import from_file  # noqa: E402

WNIDS = [line.split("\t")[1] for line in (ROOT / "data" / "imagenet.tsv").read_text().splitlines()[1:]]
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

# "AlexNet ImageNet-C Error" by severity, from the README of hendrycks/robustness at commit ac836a51; the last four
# are the extra ones.
ALEXNET = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
    "speckle_noise": (0.66192, 0.74440, 0.90246, 0.94548, 0.97268),
    "gaussian_blur": (0.54732, 0.70444, 0.82574, 0.89864, 0.95940),
    "spatter": (0.47196, 0.62194, 0.75052, 0.84132, 0.90182),
    "saturate": (0.59342, 0.65514, 0.51174, 0.70834, 0.82260),
}
GROUPS = {"noise": 3, "blur": 4, "weather": 4, "digital": 4, "extra": 4}  # as the authors' archives unpack


# ---- the sets ----


def distorted(picture, rng, strength):
    """A picture turned, blurred and covered with noise, more or less."""
    side = rng.randint(230, 500)
    picture = picture.resize((side, rng.randint(230, 500)), Image.BICUBIC)
    picture = picture.rotate(rng.uniform(-8, 8) * strength, Image.BICUBIC, fillcolor=(128, 128, 128))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2) * strength))
    picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.5, 1))
    noise = np.random.default_rng(rng.randint(0, 2**31)).normal(0, 12 * strength, (*picture.size[::-1], 3))
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.uint8))


class Maker:
    """Makes sets of distorted pictures."""

    def __init__(self, pictures, seed):
        self.rng = random.Random(seed)
        self.pictures = []
        for path in sorted(pictures.iterdir()):
            if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
                wnid = re.match(r"n\d{8}", path.name)
                known = wnid and wnid.group() in WNIDS
                self.pictures.append((Image.open(path).convert("RGB"), wnid.group() if known else None))

    def images(self, count, classes, strength=1.0):
        """Pictures with WordNet ids among these classes."""
        for _ in range(count):
            picture, wnid = self.rng.choice(self.pictures)
            label = wnid if wnid in classes else self.rng.choice(classes)
            yield distorted(picture, self.rng, strength), label

    def class_folders(self, folder, count, classes, name=lambda wnid: wnid, stem="picture", strength=1.0, size=None):
        for number, (picture, wnid) in enumerate(self.images(count, classes, strength)):
            directory = folder / name(wnid)
            directory.mkdir(parents=True, exist_ok=True)
            if size:
                picture = picture.resize((size, size), Image.BICUBIC)
            if number % 2 or size:
                picture.save(directory / f"{stem}_{number + 1:08}.JPEG", quality=85)
            else:
                picture.save(directory / f"{stem}_{number + 1:08}.png")

    def some_classes(self, count):
        """Classes of which half are those of pictures that are known to show one."""
        known = sorted({wnid for _, wnid in self.pictures if wnid})
        known = self.rng.sample(known, len(known) // 2)
        return sorted(known + self.rng.sample([wnid for wnid in WNIDS if wnid not in known], count - len(known)))

    def all_sets(self, folder):
        self.class_folders(folder / "val", 60, self.some_classes(20), stem="ILSVRC2012_val")
        real = [self.rng.sample(range(1000), self.rng.randint(0, 2)) for _ in range(60)]
        for number, path in enumerate(sorted(folder.glob("val/*/*"), key=lambda path: path.stem)):
            if self.rng.random() < 0.7:  # the label itself, or what a network that knows little says
                real[number].append(WNIDS.index(path.parent.name))
        (folder / "real.json").write_text(json.dumps(real))
        self.class_folders(folder / "imagenetv2", 50, self.some_classes(20), name=lambda wnid: str(WNIDS.index(wnid)))
        self.class_folders(folder / "imagenet-a", 60, self.some_classes(20))
        self.class_folders(folder / "imagenet-r", 60, self.some_classes(25))
        self.class_folders(folder / "sketch", 50, self.some_classes(30))
        names = iter(ALEXNET)
        for group, count in GROUPS.items():
            for corruption in [next(names) for _ in range(count)]:
                for severity in range(1, 6):
                    part = folder / "imagenet-c" / group / corruption / str(severity)
                    classes = self.some_classes(12)
                    self.class_folders(part, 6, classes, stem="ILSVRC2012_val", strength=severity / 2, size=224)


# ---- what the authors publish, in PyTorch ----


def resized(picture):
    """timm's transform for evaluation: the shorter side to 235, bicubic, as torchvision's Resize computes sizes."""
    w, h = picture.size
    size = (235, int(235 * h / w)) if w <= h else (int(235 * w / h), 235)
    return picture.resize(size, Image.BICUBIC)


def cropped(picture):
    """torchvision's CenterCrop(224)."""
    left, top = round((picture.width - 224) / 2), round((picture.height - 224) / 2)
    return picture.crop((left, top, left + 224, top + 224))


def logits_of(net, paths, resize=True):
    rows = []
    with torch.inference_mode():
        for path in paths:
            picture = Image.open(path).convert("RGB")
            crop = cropped(resized(picture) if resize else picture)
            pixels = (np.asarray(crop, np.float32) / 255 - MEAN) / STD
            rows.append(net(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[0])
    return torch.stack(rows)


def scores(logits, targets):
    """top-1, top-5 and cross-entropy."""
    targets = torch.tensor(targets)
    top = logits.topk(5, dim=1).indices
    right = (top == targets[:, None]).double()
    loss = torch.nn.functional.cross_entropy(logits.double(), targets)
    return right[:, 0].mean().item(), right.sum(1).mean().item(), loss.item()


def by_folder(folder, target, net):
    """A folder of class folders; `target` makes the label of a folder's name."""
    paths = sorted(folder.glob("*/*"))
    return paths, logits_of(net, paths), [target(path.parent.name) for path in paths]


def all_outputs(net, folder):
    _, logits, targets = by_folder(folder, WNIDS.index, net)
    return scores(logits, targets)


def imagenet_v2(net, folder):
    _, logits, targets = by_folder(folder, int, net)
    return scores(logits, targets)


def two_hundred_classes(net, folder):
    """ImageNet-A's and -R's eval.py: ImageFolder's labels, and the arg max of `output[:, indices_in_1k]`."""
    folders = sorted(path.name for path in folder.iterdir())
    indices_in_1k = [WNIDS.index(name) for name in folders]
    _, logits, targets = by_folder(folder, folders.index, net)
    return scores(logits[:, indices_in_1k], targets)


def real_accuracy(net, folder, file):
    """The example in ReaL's README."""
    real = json.loads(file.read_text())
    paths = sorted(folder.glob("*/*"), key=lambda path: path.stem)
    predictions = logits_of(net, paths).argmax(1).tolist()
    return np.mean([prediction in labels for prediction, labels in zip(predictions, real) if labels])


def imagenet_c(net, folder):
    """ImageNet-C's test.py, which crops and does not resize, and the mean corruption error of the paper."""
    errors = {}
    for corruption in ALEXNET:
        (place,) = folder.glob(f"*/{corruption}")
        errors[corruption] = []
        for severity in range(1, 6):
            paths = sorted((place / str(severity)).glob("*/*"))
            predictions = logits_of(net, paths, resize=False).argmax(1).tolist()
            wrong = [WNIDS[prediction] != path.parent.name for prediction, path in zip(predictions, paths)]
            errors[corruption].append(sum(wrong) / len(wrong))
    ce = {corruption: sum(errors[corruption]) / sum(ALEXNET[corruption]) for corruption in ALEXNET}
    return errors, ce, sum(list(ce.values())[:15]) / 15


def timms_validate(args, folder):
    """timm's own validate.py with --valid-labels, on this project's network."""
    valid = folder / "valid.txt"
    valid.write_text("".join(f"{WNIDS.index(path.name)}\n" for path in sorted((folder / "imagenet-a").iterdir())))
    code = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'reference')!r})\n"
        "import timm.models, qlnet\n"
        "def qlnet_50_v0(pretrained=False, **kwargs):\n"
        f"    net = qlnet.from_file({str(args.weights)!r})\n"
        "    net.num_classes = 1000\n"
        "    net.pretrained_cfg = net.default_cfg = dict(input_size=(3, 224, 224), crop_pct=0.95,\n"
        "        interpolation='bicubic', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))\n"
        "    return net\n"
        "timm.models.register_model(qlnet_50_v0)\n"
        f"sys.argv = ['validate.py', '--data-dir', {str(folder / 'imagenet-a')!r}, '--model', 'qlnet_50_v0',\n"
        f"    '--valid-labels', {str(valid)!r}, '--device', 'cpu', '--no-prefetcher', '-b', '20', '-j', '0',\n"
        f"    '--results-file', {str(folder / 'timm.json')!r}, '--results-format', 'json']\n"
        f"runpy.run_path({str(args.validate)!r}, run_name='__main__')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = json.loads((folder / "timm.json").read_text())
    result = result[0] if isinstance(result, list) else result
    return result["top1"] / 100, result["top5"] / 100


# ---- the comparison ----


class Comparison:
    def __init__(self):
        self.wrong = 0

    def same(self, name, found, expected, tolerance=1e-9):
        if abs(found - expected) > tolerance * max(1, abs(expected)):
            self.wrong += 1
            print(f"{name}: {found} here, {expected} expected")

    def line(self, name, found, expected):
        """top-1, top-5 and loss of a set."""
        top1, top5, loss = expected
        self.same(f"{name} top-1", found["top1"], top1)
        self.same(f"{name} top-5", found["top5"], top5)
        self.same(f"{name} loss", found["loss"], loss, 1e-4)
        outputs = len(found.get("outputs", [])) or found["classes"]
        print(f"{name:<28} {outputs:>5} outputs  top-1 {top1:7.2%}  top-5 {top5:7.2%}  loss {loss:8.4f}")


def qlnet(args, *options):
    command = [args.qlnet, "eval", "--weights", args.weights, "--json", *options]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def compare(args, net, folder):
    check = Comparison()
    sets = [folder / name for name in ["val", "imagenetv2", "sketch", "imagenet-c"]]
    found = {line["set"]: line for line in qlnet(
        args, *(part for path in sets for part in ("--imagenet-val", path)), "--real-labels", folder / "real.json")}
    check.line("validation set", found["val"], all_outputs(net, sets[0]))
    real = real_accuracy(net, sets[0], folder / "real.json")
    check.same("ReaL", found["val"]["real"], real)
    print(f"{'  ReaL':<43} {real:20.2%}")
    check.line("ImageNet-V2", found["imagenetv2"], imagenet_v2(net, sets[1]))
    check.line("ImageNet-Sketch", found["sketch"], all_outputs(net, sets[2]))

    errors, ce, mean = imagenet_c(net, sets[3])
    corrupted = found["imagenet-c"]
    assert [row["corruption"] for row in corrupted["corruptions"]] == list(ALEXNET) and not corrupted["missing"]
    for row in corrupted["corruptions"]:
        for severity in range(5):
            name = f"{row['corruption']} {severity + 1}"
            check.same(name, row["errors"][severity], errors[row["corruption"]][severity])
        check.same(f"{row['corruption']} CE", row["corruption_error"], ce[row["corruption"]])
    check.same("mCE", corrupted["mean_corruption_error"], mean)
    print(f"{'ImageNet-C':<28} 19 corruptions, 5 severities, {corrupted['images']} images  mCE {mean:7.2%}")

    few = [folder / name for name in ["imagenet-a", "imagenet-r"]]
    options = [part for path in few for part in ("--imagenet-val", path)]
    restricted = {line["set"]: line for line in qlnet(args, *options, "--restrict-to-present")}
    for name, path in zip(["ImageNet-A", "ImageNet-R"], few):
        check.line(name, restricted[path.name], two_hundred_classes(net, path))
    (plain,) = qlnet(args, "--imagenet-val", few[0])
    check.line("ImageNet-A, not restricted", plain, all_outputs(net, few[0]))
    if args.validate:
        top1, top5 = timms_validate(args, folder)
        (listed,) = qlnet(args, "--imagenet-val", few[0], "--valid-labels", folder / "valid.txt")
        check.same("timm top-1", listed["top1"], top1, 1e-6)
        check.same("timm top-5", listed["top5"], top5, 1e-6)
        print(f"{'ImageNet-A, validate.py':<43} top-1 {top1:7.2%}  top-5 {top5:7.2%}")
    return check.wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--qlnet", type=Path, default=ROOT / "target" / "release" / "qlnet")
    parser.add_argument("--validate", type=Path, help="timm's validate.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="make the sets in this folder, and leave them there")
    args = parser.parse_args()
    net = from_file(args.weights)
    with tempfile.TemporaryDirectory() as folder:
        folder = args.keep or Path(folder)
        Maker(args.pictures, args.seed).all_sets(folder)
        wrong = compare(args, net, folder)
    print("all the same" if wrong == 0 else f"{wrong} numbers differ")
    sys.exit(0 if wrong == 0 else 1)


if __name__ == "__main__":
    main()
