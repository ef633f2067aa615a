"""Times how fast images get from files to the network's input: qlnet, Pillow, libjpeg-turbo, torchvision
and timm's loader, on the same JPEG files, in alternation.

    pip install torch torchvision numpy pillow timm datasets webdataset
    apt-get install gcc libjpeg62-turbo-dev          or another libjpeg-turbo with jpeglib.h
    cargo build --release
    python scripts/make_photos.py PHOTOS --images 500 && python scripts/make_datasets.py PHOTOS OUT
    python scripts/compare_pipelines.py PHOTOS OUT/parquet-hf OUT/wds-timm photos.tar
    python scripts/compare_pipelines.py PHOTOS --end-to-end --weights qlnet-50-v0.pth.tar

PHOTOS is a folder of class folders. `qlnet bench --data` runs on it and on every other path, with 1 thread
and with --threads. Pillow, libjpeg-turbo and torchvision have the files in memory and one thread each. timm's
loader has --workers processes, and makes of its images what the network takes: its share includes the
conversion to float32, the batches and their way between processes, as qlnet's does. All files are in the
operating system's cache. The table has medians over the rounds, and the slowest and fastest round. Cores are
those that were busy, by the CPU time of all processes of a kind: images/s per core hardly depend on
what else the machine does.

With --end-to-end, it is the network as well: `qlnet eval` in float32 and int8, and timm's loader with
PyTorch, as check_against_timm.py runs both.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from check_against_timm import CROP_PCT, INPUT_SIZE, from_folder, loader_of, run_qlnet, run_timm
from compare_engines import cpu_name

ROOT = Path(__file__).resolve().parent.parent

# Decodes as Pillow does: libjpeg's defaults, to RGB. Files come as arguments behind the seconds.
LIBJPEG = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <jpeglib.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int count, char **arguments) {
    int files = count - 2;
    unsigned char **data = malloc(files * sizeof *data);
    unsigned long *size = malloc(files * sizeof *size);
    for (int i = 0; i < files; i++) {
        FILE *file = fopen(arguments[i + 2], "rb");
        if (!file) return perror(arguments[i + 2]), 1;
        fseek(file, 0, SEEK_END);
        size[i] = ftell(file);
        rewind(file);
        data[i] = malloc(size[i]);
        if (fread(data[i], 1, size[i], file) != size[i]) return perror(arguments[i + 2]), 1;
        fclose(file);
    }
    struct jpeg_error_mgr errors;
    struct jpeg_decompress_struct image;
    image.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&image);
    double start = now(), seconds = atof(arguments[1]), spent;
    unsigned char *pixels = NULL;
    size_t room = 0, images = 0;
    do {
        for (int i = 0; i < files; i++, images++) {
            jpeg_mem_src(&image, data[i], size[i]);
            jpeg_read_header(&image, TRUE);
            image.out_color_space = JCS_RGB;
            jpeg_start_decompress(&image);
            size_t row = 3 * (size_t)image.output_width, needed = row * image.output_height;
            if (needed > room) pixels = realloc(pixels, room = needed);
            while (image.output_scanline < image.output_height) {
                JSAMPROW at = pixels + row * image.output_scanline;
                jpeg_read_scanlines(&image, &at, 1);
            }
            jpeg_finish_decompress(&image);
        }
        spent = now() - start;
    } while (spent < seconds);
#define TEXT(x) #x
#define STRING(x) TEXT(x)
    printf("%.3f %s\n", images / spent, STRING(LIBJPEG_TURBO_VERSION));
}
"""


def build_libjpeg(folder):
    source = folder / "decode.c"
    source.write_text(LIBJPEG)
    program = folder / "decode"
    subprocess.run(["gcc", "-O3", "-o", str(program), str(source), "-ljpeg"], check=True)
    return program


def per_second(work, items, seconds):
    """How many items a second `work` does, of whole passes over all of them."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for item in items:
            work(item)
        done += len(items)
    return done / (time.perf_counter() - start)


def cpu_seconds():
    """CPU time of this process and all that it started, the workers that are still there included."""
    spent, ticks = os.times(), os.sysconf("SC_CLK_TCK")
    total = spent.user + spent.system + spent.children_user + spent.children_system
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def measure(run, seconds):
    """Images a second, and how many cores were busy meanwhile."""
    cpu, start = cpu_seconds(), time.perf_counter()
    speed = run(seconds)
    return speed, (cpu_seconds() - cpu) / (time.perf_counter() - start)


def eval_transform(model):
    """timm's, up to the crop of bytes: without the conversion to float32."""
    import timm.data

    size = INPUT_SIZE[model]
    steps = timm.data.create_transform((3, size, size), interpolation="bicubic", crop_pct=CROP_PCT[model])
    resize, crop = steps.transforms[:2]
    return lambda image: crop(resize(image))


def in_python(files, args):
    """Pillow and torchvision: a name and a function of seconds each."""
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    data = [file.read_bytes() for file in files]
    transform = eval_transform(args.model)
    # Decoded images take some room.
    decoded = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in data[:100]]
    tensors = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in data]
    works = {
        "Pillow: decode, resize, crop": (lambda jpeg: transform(Image.open(io.BytesIO(jpeg)).convert("RGB")), data),
        "Pillow: decode": (lambda jpeg: Image.open(io.BytesIO(jpeg)).convert("RGB"), data),
        "Pillow: resize, crop": (transform, decoded),
        "torchvision: decode_jpeg": (lambda jpeg: decode_jpeg(jpeg, ImageReadMode.RGB), tensors),
    }
    for name, (work, items) in works.items():
        yield name, lambda seconds, work=work, items=items: per_second(work, items, seconds)


def by_libjpeg(files, program):
    command = [str(program), "0", *map(str, files)]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    def run(seconds):
        command[1] = str(seconds)
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])

    return f"libjpeg-turbo {version}: decode", run


def by_timm(args, scratch):
    """timm's loader of the class folders. Its workers live on, and wait while others run."""
    dataset, names = from_folder(args.data, args, scratch)
    loader = loader_of(dataset, args)

    def run(seconds):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            done += sum(len(target) for _, target in loader)
        assert done % len(names) == 0, (done, len(names))
        return done / (time.perf_counter() - start)

    return f"timm's loader, {args.workers} workers", run


def by_qlnet(args, path, threads):
    command = [args.qlnet, "bench", "--data", path, "--model", args.model, "--threads", threads, "--json"]
    command += ["--weights", args.weights] if args.weights else []

    def run(_):
        result = subprocess.run([str(part) for part in command], check=False, stdout=subprocess.PIPE, text=True)
        if result.returncode:
            sys.exit(f"{' '.join(map(str, command))}: exit code {result.returncode}")
        return json.loads(result.stdout)["images_per_second"]

    return f"qlnet: {path.name}, {threads} thread{'s' * (threads > 1)}", run


def pipelines(args, scratch):
    """What is timed without the network."""
    files = sorted(file for file in args.data.glob("*/*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        sys.exit(f"{args.data}: no folders with JPEG files")
    torch.set_num_threads(1)
    ours = []
    for threads in sorted({1, args.threads}) if not args.without_qlnet else []:
        ours += [by_qlnet(args, path, threads) for path in [args.data, *args.other]]
    libjpeg = by_libjpeg(files, build_libjpeg(scratch))
    return [*ours, *in_python(files, args), libjpeg, by_timm(args, scratch)]


def end_to_end(args, scratch):
    """What is timed with the network. PyTorch has --threads for it, beside timm's --workers."""

    def ours(dtype):
        return lambda _: run_qlnet(args, scratch, ["--dtype", dtype])[1]["images_per_second"]

    def theirs(channels_last):
        def run(_):
            args.channels_last = channels_last
            predictions, _, _, seconds = run_timm(args, args.weights, scratch)
            return len(predictions) / seconds

        return run

    kinds = [] if args.without_qlnet else [("qlnet eval, float32", ours("f32")), ("qlnet eval, int8", ours("int8"))]
    return [*kinds, ("timm, PyTorch, eager", theirs(False)), ("timm, PyTorch, channels_last", theirs(True))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="PHOTOS", help="a folder of class folders with JPEG files")
    parser.add_argument("other", type=Path, nargs="*", metavar="PATH", help="the same images in other forms, for qlnet")
    parser.add_argument("--end-to-end", action="store_true", help="with the network")
    parser.add_argument("--weights", type=Path, help="for --end-to-end")
    parser.add_argument("--model", choices=INPUT_SIZE, default="qlnet-50-v0")
    parser.add_argument("--qlnet", type=Path, default=ROOT / "target" / "release" / "qlnet")
    parser.add_argument("--without-qlnet", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per round, or one pass over the images")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of timm's loader")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    args.qlnet = args.qlnet.resolve() if args.qlnet.exists() else args.qlnet
    if args.end_to_end and not args.weights:
        parser.error("--end-to-end needs --weights")

    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        contenders = (end_to_end if args.end_to_end else pipelines)(args, scratch)
        results = {name: [] for name, _ in contenders}
        if not args.end_to_end:
            for _, run in contenders:  # once for caches and workers
                run(0.1)
        for round in range(args.rounds):
            for name, run in contenders:
                results[name].append(measure(run, args.seconds))
            print(f"round {round + 1} of {args.rounds}", file=sys.stderr)

    import PIL
    import timm
    import torchvision

    print(f"{cpu_name()}, medians of {args.rounds} rounds; Pillow {PIL.__version__}, timm {timm.__version__}, ", end="")
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}\n")
    print("| | images/s | of rounds | cores busy | images/s per core |\n|---|---|---|---|---|")
    for name, rounds in results.items():
        speeds = [speed for speed, _ in rounds]
        busy = statistics.median(cores for _, cores in rounds)
        per_core = statistics.median(speed / cores for speed, cores in rounds)
        row = [f"{statistics.median(speeds):.1f}", f"{min(speeds):.1f} to {max(speeds):.1f}", f"{busy:.2f}", f"{per_core:.1f}"]
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
