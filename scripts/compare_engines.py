"""Times qlnet's forward pass beside ONNX Runtime, PyTorch and OpenVINO, on the same weights, on the
CPU, in alternation, and checks that all compute the same logits.

    pip install torch numpy pillow onnx onnxscript onnxruntime openvino
    cargo build --release
    python scripts/compare_engines.py                     a seeded network of qlnet-50-v0's dimensions
    python scripts/compare_engines.py --weights FILE      weights of your own (PyTorch)
    python scripts/compare_engines.py --svg layers.svg    also draws where the time goes
    python scripts/compare_engines.py --crops DIR         logits of these 224x224 pictures instead of one made up

Every engine runs each batch size for some seconds, then the next one does, and so on for several
rounds; the table has medians over the rounds. The limit is what float32 matrix products of PyTorch
reach on the same threads in the same run. The logits of each engine are compared with PyTorch's in float32: the
largest difference, relative to the largest logit, and how many pictures have another top class.
"""

# What `--dtype` asks qlnet for.
OURS = {"qlnet": "f32", "qlnet, bfloat16": "bf16", "qlnet, int8": "int8"}
# Engines that round, and may differ by more.
ROUNDED = {"qlnet, bfloat16", "qlnet, int8", "OpenVINO, its default", "PyTorch, bfloat16"}


import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "reference"))


def seeded_network(file):
    """A network of qlnet-50-v0's dimensions whose batch norms have seen some noise."""
    import torch
    from qlnet import QLNET_50_V0, QLNet

    torch.manual_seed(0)
    net = QLNet(QLNET_50_V0).train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.randn(4, 3, 224, 224))
    torch.save(net.state_dict(), file)


def onnx_file(net, batch, folder):
    import contextlib
    import io

    import torch

    file = folder / f"qlnet-{batch}.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(net, (torch.zeros(batch, 3, 224, 224),), file, dynamo=True, external_data=False)
    return file


def onnxruntime_session(file, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def openvino_model(file, threads, settings):
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **settings}
    model = core.compile_model(core.read_model(str(file)), "CPU", settings)
    return lambda x: model(x)[0]


def torch_model(net, channels_last, bfloat16=False):
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    net = net.to(memory_format=layout, dtype=dtype)

    def run(x):
        with torch.inference_mode():
            return net(torch.from_numpy(x).to(memory_format=layout, dtype=dtype)).float().numpy()

    return run


def in_batches(run, x, batch):
    """The logits of all pictures, of which the last is repeated to fill the last batch."""
    count = len(x)
    x = np.concatenate([x, np.repeat(x[-1:], -count % batch, 0)])
    return np.concatenate([run(x[i : i + batch]) for i in range(0, len(x), batch)])[:count]


def median_ms(run, x, seconds):
    run(x)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times) / len(x)


def ours(args, batch, dtype="f32", extra=()):
    command = [args.qlnet, "bench", "--weights", str(args.weights), "--threads", str(args.threads), "--json"]
    command += ["--batch-size", str(batch), "--duration", str(args.seconds), "--repetitions", "3"]
    command += ["--dtype", dtype, *extra]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]


def instructions(args, dtype):
    """What qlnet says that it computes with."""
    command = [args.qlnet, "bench", "--weights", str(args.weights), "--threads", str(args.threads), "--dtype", dtype]
    command += ["--batch-size", "1", "--duration", "0", "--repetitions", "1"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0].split(", ", 1)[1]


def product_limit(threads, seconds):
    """GFLOP/s of large float32 matrix products: the best of several sizes."""
    import torch

    best = 0.0
    for n in (1024, 1536, 2048):
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        times, end = [], time.perf_counter() + seconds / 3
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            times.append(time.perf_counter() - start)
        best = max(best, 2 * n**3 / statistics.median(times) / 1e9)
    return best


def pictures(args, folder):
    """Files of 224x224 pixels, and all of them as the network's input."""
    from PIL import Image

    files = sorted(args.crops.glob("*.png")) if args.crops else [folder / "picture.png"]
    if not args.crops:
        made_up().save(files[0])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    crops = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    tensors = [((crop / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1) for crop in crops]
    return files, np.ascontiguousarray(np.stack(tensors))


def made_up():
    """A photograph-like picture."""
    from PIL import Image

    y, x = np.mgrid[0:224, 0:224]
    image = np.stack([128 + 120 * np.sin(x / (9 + c)) * np.cos(y / 13 - c) for c in range(3)], -1)
    image += np.random.default_rng(0).normal(0, 10, image.shape)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def our_logits(args, files, dtype):
    command = [args.qlnet, "classify", *map(str, files), "--weights", str(args.weights), "--json", "-k", "4096"]
    command += ["--resize", "224", "--dtype", dtype]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    logits = []
    for record in map(json.loads, out.splitlines()):
        logits.append([p["logit"] for p in sorted(record["predictions"], key=lambda p: p["index"])])
    return np.array(logits)


def agreement_of(logits, expected):
    """The largest difference relative to the largest logit, and the number of other top classes."""
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    return difference, int((logits.argmax(1) != expected.argmax(1)).sum())


def peak_memory(command):
    """Peak memory of a process, in MiB."""
    code = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    out = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True).stdout
    return int(out) / 1024


def step_macs(net):
    """Multiply-adds of each step for one 224x224 image, by the names that `qlnet bench` uses."""
    import torch
    from torch import nn

    macs, current = {}, None
    def count(module, _, y):
        weight = module.weight
        per_output = weight[0].numel()
        macs[current] = macs.get(current, 0) + per_output * y[0].numel()
    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        steps = net.trace(torch.zeros(1, 3, 224, 224))
        names = ["stem"] + [f"layer{i + 1}.{j}" for i in range(net.layers) for j in range(len(getattr(net, f"layer{i + 1}")))]
        for current in [*names, "act", "head"]:
            next(steps)
    for hook in hooks:
        hook.remove()
    return macs


def draw(steps, macs, limit, title):
    """Bars of each step's time, in SVG, with the time of its multiply-adds at the limit inside."""
    steps = [s for s in steps if s["step"] != "act"]
    left, top, width, row = 90, 64, 560, 22
    largest = max(s["ms_per_image"] for s in steps)
    scale = width / (largest * 1.05)
    height = top + row * len(steps) + 46
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 80} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        "<style>text{fill:#222}.all{fill:#9db7d5}.limit{fill:#2b5c94}.axis{stroke:#888}.page{fill:#fff}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.all{fill:#47617e}.limit{fill:#8fb8e8}.page{fill:#161616}}</style>",
        f'<rect class="page" width="{left + width + 80}" height="{height}"/>',
        f'<text x="{left}" y="22" font-size="14" font-weight="600">{title}</text>',
        f'<rect class="limit" x="{left}" y="34" width="12" height="12"/>'
        f'<text x="{left + 18}" y="44">its multiply-adds at {limit:.0f} GFLOP/s</text>'
        f'<rect class="all" x="{left + 220}" y="34" width="12" height="12"/><text x="{left + 238}" y="44">everything else</text>',
    ]
    for i, step in enumerate(steps):
        y, ms = top + i * row, step["ms_per_image"]
        ideal = min(2e3 * macs[step["step"]] / (limit * 1e9), ms)
        out.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{step["step"]}</text>'
            f'<rect class="all" x="{left}" y="{y + 2}" width="{ms * scale:.1f}" height="{row - 5}"/>'
            f'<rect class="limit" x="{left}" y="{y + 2}" width="{ideal * scale:.1f}" height="{row - 5}"/>'
            f'<text x="{left + ms * scale + 6:.1f}" y="{y + 14}">{ms:.2f}</text>'
        )
    base = top + row * len(steps) + 4
    tick = next(t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if largest / t <= 8)
    out.append(f'<path class="axis" d="M{left} {base}H{left + width}" fill="none"/>')
    for k in range(int(largest * 1.05 / tick) + 1):
        x = left + k * tick * scale
        out.append(f'<path class="axis" d="M{x:.1f} {base}v4"/><text x="{x:.1f}" y="{base + 17}" text-anchor="middle">{k * tick:g}</text>')
    out.append(f'<text x="{left + width}" y="{base + 34}" text-anchor="end">milliseconds per image</text></svg>')
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--qlnet", default=str(ROOT / "target" / "release" / "qlnet"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per engine, batch size and round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--crops", type=Path, help="a folder of 224x224 PNG files")
    parser.add_argument("--svg", type=Path, help="draw the time of each step at the largest batch size")
    parser.add_argument("--run-onnx", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_onnx:  # a process of its own, whose memory is measured
        onnxruntime_session(args.run_onnx, args.threads)(np.zeros((args.batch[0], 3, 224, 224), np.float32))
        return

    import onnxruntime
    import openvino
    import torch
    from qlnet import from_file

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.environ["QLNET_CACHE"] = str(folder / "cache")
        if args.weights is None:
            args.weights = folder / "seeded.pth"
            seeded_network(args.weights)
        net = from_file(args.weights)
        files, tensors = pictures(args, folder)
        expected = torch_model(net, False)(tensors)
        agreement = {name: agreement_of(our_logits(args, files, dtype), expected) for name, dtype in OURS.items()}

        results, limits, engines = {}, [], {}
        for batch in args.batch:
            file = onnx_file(net, batch, folder)
            engines[batch] = {
                "ONNX Runtime": onnxruntime_session(file, args.threads),
                "OpenVINO, float32": openvino_model(file, args.threads, {"INFERENCE_PRECISION_HINT": "f32"}),
                "OpenVINO, its default": openvino_model(file, args.threads, {}),
                "PyTorch, eager": torch_model(from_file(args.weights), False),
                "PyTorch, channels_last": torch_model(from_file(args.weights), True),
                "PyTorch, bfloat16": torch_model(from_file(args.weights), True, bfloat16=True),
            }
            for name, run in engines[batch].items():
                logits = in_batches(run, tensors, batch)
                agreement[name] = max(agreement.get(name, (0, 0)), agreement_of(logits, expected))
        for name, (difference, _) in agreement.items():
            if difference > (5e-2 if name in ROUNDED else 1e-4):
                sys.exit(f"{name} computes other logits: they differ by {difference:.1e} of the largest")
        for round in range(args.rounds):
            limits.append(product_limit(args.threads, args.seconds))
            for batch in args.batch:
                x = np.repeat(tensors[:1], batch, 0)
                for name, dtype in OURS.items():
                    results.setdefault((name, batch), []).append(ours(args, batch, dtype)["ms_per_image"])
                for name, run in engines[batch].items():
                    results.setdefault((name, batch), []).append(median_ms(run, x, args.seconds))
            print(f"round {round + 1} of {args.rounds}", file=sys.stderr)

        limit = statistics.median(limits)
        macs = step_macs(net)
        possible = limit / (2 * sum(macs.values()) / 1e9)
        print(f"{date.today()}, {cpu_name()}, {args.threads} threads, 224x224; PyTorch {torch.__version__},")
        for name, dtype in OURS.items():
            print(f"{name}: {instructions(args, dtype)}")
        print(f"ONNX Runtime {onnxruntime.__version__}, OpenVINO {openvino.__version__.split('-')[0]}")
        print(f"matrix products: {limit:.0f} GFLOP/s, so at most {possible:.1f} images per second\n")
        header = ["engine", *(f"batch {b}, ms per image | images/s | qlnet is faster by" for b in args.batch), "logits differ by", f"other top class, of {len(files)}"]
        print("| " + " | ".join(header) + " |")
        print("|---" + "|---" * 3 * len(args.batch) + "|---|---|")
        for name in agreement:
            cells = []
            for batch in args.batch:
                ms = statistics.median(results[name, batch])
                pairs = zip(results[name, batch], results["qlnet", batch])
                ratio = statistics.median(theirs / mine for theirs, mine in pairs)
                cells += [f"{ms:.1f}", f"{1e3 / ms:.1f}", "" if name == "qlnet" else f"{ratio:.2f}x"]
            print(f"| {name} | " + " | ".join(cells) + f" | {agreement[name][0]:.0e} | {agreement[name][1]} |")
        for batch in args.batch:
            share = 1e3 / statistics.median(results["qlnet", batch]) / possible
            print(f"\nbatch {batch}: {share:.0%} of the limit of matrix products")

        largest = max(args.batch)
        bench = [args.qlnet, "bench", "--weights", str(args.weights), "--batch-size", str(largest), "--duration", "0"]
        onnx = [sys.executable, __file__, "--run-onnx", str(folder / f"qlnet-{largest}.onnx"), "--batch", str(largest)]
        print(f"\npeak memory of a process, batch {largest}: qlnet {peak_memory(bench):.0f} MiB, ", end="")
        print(f"ONNX Runtime from Python {peak_memory(onnx):.0f} MiB (of which Python, NumPy and its code ", end="")
        print(f"{peak_memory([sys.executable, '-c', 'import numpy, onnxruntime']):.0f} MiB)")
        if args.svg:
            steps = ours(args, largest, extra=["--layers"])["steps"]
            args.svg.write_text(draw(steps, macs, limit, f"QLNet, batch {largest}, {args.threads} threads: time of each step"))


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
