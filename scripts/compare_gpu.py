"""Times qlnet beside PyTorch (eager, channels_last, compiled) and ONNX Runtime on one NVIDIA card, on the same weights,
in alternation, and checks qlnet's logits against those of its own float32 on the CPU.

    pip install torch numpy                              (and onnxruntime-gpu, onnx, onnxscript, if wanted)
    python scripts/compare_gpu.py --qlnet PROGRAM        a program built with the feature `cuda`; a seeded network
    python scripts/compare_gpu.py --weights FILE         weights of your own (PyTorch)
    python scripts/compare_gpu.py --targets              the exit code is 1 also where a target is missed
    python scripts/compare_gpu.py --device cpu --batch 1 4 --budget 60    the same code without a card

What is timed is what a caller waits for: bytes of images on the host, to the device, normalised there, through the
network, logits back on the host. Rows `without transfers` start with the bytes on the device and leave the logits there.
PyTorch's batch norms are folded into its convolutions, as qlnet's are, and its host memory is pinned. Every engine runs
for a while, then the next one does, for several rounds; figures are medians over rounds. `--budget` is for all of this but
what torch.compile takes, which has `--compile-seconds`. An engine that fails has its message in the table.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from datetime import date
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "reference"))

import qlnet as reference  # noqa: E402
from compare_engines import in_batches, median_ms, seeded_network  # noqa: E402

# By `--dtype`: what PyTorch computes in, and how far from the CPU's float32 qlnet's logits may be, relative to the largest.
TYPES = {
    "f32": (torch.float32, 1e-4),
    "tf32": (torch.float32, 2e-3),
    "f16": (torch.float16, 2e-3),
    "bf16": (torch.bfloat16, 2e-2),
}
# Of other engines: who is further off computes something else.
OTHER_NETWORK = 0.1
# Images per second at the largest batch, and milliseconds at batch 1.
THROUGHPUT, LATENCY = {("f32", 256): 6000, ("f16", 256): 10000}, 1.5
SIDE, PICTURES = 224, 8


class TooLong(BaseException):
    """Nobody's `except Exception` holds it back."""


class FromBytes(torch.nn.Module):
    """The network with its normalisation: bytes `[n, h, w, 3]` to float32 logits."""

    def __init__(self, net, dtype, layout):
        super().__init__()
        self.net, self.dtype, self.layout = net.to(dtype=dtype, memory_format=layout), dtype, layout
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, pixels):
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return self.net(x.to(dtype=self.dtype, memory_format=self.layout)).float()


def folded(net):
    """The network with its batch norms in its convolutions, where these are PyTorch's own."""
    fuse, identity = torch.nn.utils.fusion.fuse_conv_bn_eval, torch.nn.Identity()
    net.conv1, net.bn1 = fuse(net.conv1, net.bn1), identity
    for module in list(net.modules()):
        if isinstance(module, reference.ConvNorm):
            module.conv, module.bn = fuse(module.conv, module.bn), identity
        elif isinstance(module, reference.Block) and isinstance(module.conv2, torch.nn.Conv2d):
            module.conv2, module.bn2 = fuse(module.conv2, module.bn2), identity
    return net


def pictures(folder):
    """Files of made-up pictures, from smooth to noise, and their pixels."""
    rng, files, all_pixels = np.random.default_rng(0), [], []
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for i in range(PICTURES):
        waves = [128 + 120 * np.sin(x / (4 + 3 * i + c)) * np.cos(y / (9 + i) - c) for c in range(3)]
        pixels = (np.stack(waves, -1) + rng.normal(0, 1 + 8 * i, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
        all_pixels.append(pixels)
        files.append(folder / f"picture-{i}.png")
        files[-1].write_bytes(png(pixels))
    return files, np.stack(all_pixels)


def png(pixels):
    """A PNG file, so that nothing but NumPy is needed."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def qlnet(args, *words):
    """What the program prints. Its last line of messages is the error's if it fails."""
    done = subprocess.run([args.qlnet, *map(str, words)], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0])
    return done.stdout


def our_logits(args, files, device, dtype, batch):
    words = ["classify", *files, "--weights", args.weights, "--json", "-k", 4096, "--resize", SIDE]
    out = qlnet(args, *words, "--batch-size", batch, "--device", device, "--dtype", dtype)
    rows = [sorted(json.loads(line)["predictions"], key=lambda p: p["index"]) for line in out.splitlines()]
    return np.array([[p["logit"] for p in row] for row in rows])


def our_ms(args, batch, dtype, seconds):
    words = ["bench", "--weights", args.weights, "--json", "--batch-size", batch, "--duration", f"{seconds:.3f}"]
    words += ["--repetitions", 3, "--warmup", 5 if args.cuda else 1, "--device", args.device, "--dtype", dtype]
    out = qlnet(args, *words)
    return batch * json.loads(out)[0]["ms_per_image"]


def difference(logits, expected):
    """The largest, relative to the largest logit. NaN and infinity are infinitely far off."""
    value = np.abs(logits - expected).max() / np.abs(expected).max()
    return float(value) if np.isfinite(value) else float("inf")


class Torch:
    """A network in PyTorch: `run` from bytes on the host to logits there, `resident` from bytes on the device."""

    def __init__(self, args, dtype, layout, mode=None):
        net = folded(reference.from_file(args.weights))
        self.device, self.cuda = torch.device(args.device), args.cuda
        self.model = FromBytes(net, dtype, layout).to(self.device).eval()
        if mode:
            self.model = torch.compile(self.model, mode=mode, dynamic=False)

    def run(self, pixels):
        # `no_grad` is what torch.compile's graphs of CUDA are made for.
        with torch.no_grad():
            return self.model(pixels.to(self.device, non_blocking=True)).cpu().numpy()

    def resident(self, pixels):
        with torch.no_grad():
            self.model(pixels)
        if self.cuda:
            torch.cuda.synchronize()


def onnx_runtime(args, type_name, batch, folder):
    """ONNX Runtime's CUDA provider (its CPU provider for `--device cpu`), from bytes on the host as the others."""
    import contextlib
    import io

    import onnxruntime

    provider = "CUDAExecutionProvider" if args.cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"ONNX Runtime {onnxruntime.__version__} has no {provider}")
    model = FromBytes(folded(reference.from_file(args.weights)), TYPES[type_name][0], torch.contiguous_format).eval()
    file = folder / f"{type_name}-{batch}.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        example = torch.zeros(batch, SIDE, SIDE, 3, dtype=torch.uint8)
        torch.onnx.export(model, (example,), file, dynamo=True, external_data=False)
    options = {"device_id": torch.device(args.device).index or 0, "use_tf32": int(type_name == "tf32")}
    chosen = [(provider, options)] if args.cuda else [provider]
    session = onnxruntime.InferenceSession(str(file), providers=chosen)
    file.unlink()
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime could not load {provider}")
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.numpy()})[0]


def says(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


class Comparison:
    """All engines at one type and batch after the other, within the time that there is."""

    def __init__(self, args, files, pixels, folder):
        self.args, self.files, self.pixels, self.folder = args, files, pixels, folder
        self.expected = our_logits(args, files, "cpu", "f32", PICTURES)
        self.rows, self.compiling, self.start = [], 0.0, time.perf_counter()

    def left(self):
        """Seconds of the budget."""
        return self.args.budget - (time.perf_counter() - self.start - self.compiling)

    def compiled(self, make, x):
        """What torch.compile makes: its first pass compiles, for as long as there is."""

        def stop(*_):
            raise TooLong

        start, limit = time.perf_counter(), self.args.compile_seconds - self.compiling
        if limit < 1:
            raise RuntimeError("no time left to compile")
        # One that takes more than half of what is left leaves the others nothing.
        limit = max(limit / 2, min(limit, 45.0))
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            engine = make()
            for _ in range(3):
                engine.run(x)
            return engine
        except TooLong:
            raise RuntimeError(f"torch.compile took more than {limit:.0f} s") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.compiling += time.perf_counter() - start

    def engines(self, type_name, batch, x, late):
        """Functions that time a while of each engine, and how far its logits are off or why it failed, by name."""
        args, dtype = self.args, TYPES[type_name][0]
        nchw, nhwc = torch.contiguous_format, torch.channels_last
        compiled = lambda mode: lambda: self.compiled(lambda: Torch(args, dtype, nhwc, mode), x)
        makes = {  # The one to beat first: there may be no time for all.
            **{f"PyTorch, compiled, {mode}": compiled(mode) for mode in args.compile_modes},
            "PyTorch, channels_last": lambda: Torch(args, dtype, nhwc),
            "PyTorch, eager": lambda: Torch(args, dtype, nchw),
            "ONNX Runtime": lambda: onnx_runtime(args, type_name, batch, self.folder),
        }
        timed, state = {}, {}
        for name, make in makes.items():
            try:
                if late():
                    raise RuntimeError("no time left")
                engine = make()
                run = engine.run if isinstance(engine, Torch) else engine
                logits = in_batches(lambda pixels: run(torch.from_numpy(pixels)), self.pixels, batch)
                state[name] = difference(logits, self.expected)
                if not state[name] < OTHER_NETWORK:
                    raise RuntimeError(f"other logits: they differ by {state[name]:.1e} of the largest")
                timed[name] = lambda s, run=run: batch * median_ms(run, x, s)
                if name == f"PyTorch, compiled, {args.compile_modes[0]}":
                    there = x.to(args.device)
                    timed[name + ", without transfers"] = lambda s, e=engine: batch * median_ms(e.resident, there, s)
                    state[name + ", without transfers"] = state[name]
            except Exception as error:
                state[name] = says(error)
        return timed, state

    def cell(self, type_name, batch, seconds):
        """One type and batch: all engines in alternation, for about so many seconds."""
        args, limit = self.args, TYPES[type_name][1]
        # PyTorch has one setting for products and another for convolutions.
        torch.set_float32_matmul_precision("high" if type_name == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = type_name == "tf32", True
        x = torch.from_numpy(np.resize(self.pixels, (batch, SIDE, SIDE, 3)))
        x = x.pin_memory() if torch.cuda.is_available() else x
        start, compiling = time.perf_counter(), self.compiling
        spent = lambda: time.perf_counter() - start - (self.compiling - compiling)
        timed, state = self.engines(type_name, batch, x, lambda: spent() > 0.7 * seconds)
        try:
            state["qlnet"] = difference(our_logits(args, self.files, args.device, type_name, batch), self.expected)
            timed = {"qlnet": lambda s: our_ms(args, batch, type_name, s), **timed}
        except Exception as error:
            state["qlnet"] = says(error)
        each = max(0.1, (seconds - spent()) / (args.rounds * max(1, len(timed))) - (1.5 if args.cuda else 0))
        times = {}
        for _ in range(args.rounds):
            for name in list(timed):
                try:
                    times.setdefault(name, []).append(timed[name](min(each, 3.0)))
                except Exception as error:
                    state[name] = says(error)
                    del timed[name], times[name]
            if spent() > seconds:
                break
        for name in ["qlnet", *(name for name in state if name != "qlnet")]:
            row = {"type": type_name, "batch": batch, "engine": name, "limit": limit if name == "qlnet" else None}
            row |= {"error": state[name]} if isinstance(state[name], str) else {"logits_differ_by": state[name]}
            if name in timed:
                row |= {"ms": statistics.median(times[name]), "rounds_ms": times[name]}
                row["images_per_second"] = 1e3 * batch / row["ms"]
            self.rows.append(row)

    def run(self):
        # The largest batch first, and the types that targets are set for.
        cells = [(t, b) for b in sorted(self.args.batch, key=lambda b: (b != max(self.args.batch), b)) for t in self.args.types]
        for i, cell in enumerate(cells):
            if self.left() <= 0:
                self.rows.append({"type": cell[0], "batch": cell[1], "engine": "qlnet", "error": "no time left"})
                continue
            self.cell(*cell, self.left() / (len(cells) - i))
            timed = [f"{row['engine']} {row['ms']:.3f} ms" for row in self.rows if "ms" in row and (row["type"], row["batch"]) == cell]
            print(f"{cell[0]}, batch {cell[1]}: {'; '.join(timed)} ({self.left():.0f} s left)", file=sys.stderr, flush=True)
            torch._dynamo.reset()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def targets(rows):
    """Whether qlnet is ahead of PyTorch everywhere and as fast as it is meant to be; None is not measured."""
    found, checks = {}, []
    for row in rows:
        found.setdefault((row["type"], row["batch"]), {})[row["engine"]] = row
    for (type_name, batch), engines in found.items():
        ours, where = engines["qlnet"].get("ms"), f"{type_name}, batch {batch}"
        theirs = {name: row["ms"] for name, row in engines.items() if "PyTorch" in name and "without" not in name and "ms" in row}
        known = ours and any("compiled" in name for name in theirs)
        checks.append({"target": f"{where}: ahead of PyTorch, compiled and not", "met": ours < min(theirs.values()) if known else None})
        if wanted := THROUGHPUT.get((type_name, batch)):
            rate = engines["qlnet"].get("images_per_second")
            checks.append({"target": f"{where}: {wanted:,} images/s", "met": rate and rate >= wanted})
        if batch == 1:
            checks.append({"target": f"{where}: under {LATENCY} ms", "met": ours and ours < LATENCY})
    return checks


def machine(args):
    """The card, its driver, and the versions of everything."""
    about = {"date": str(date.today()), "program": qlnet(args, "--version").splitlines()[0], "torch": torch.__version__}
    if not args.cuda:
        return about | {"device": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    about |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    try:
        query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
        said = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True).stdout
    except OSError:
        said = "no nvidia-smi"
    return about | {"card, driver, memory, clock, power": said.strip()}


def show(about, rows, checks):
    print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    print("| batch | type | engine | ms per batch | images/s | qlnet is faster by | logits differ by |")
    print("|---|---|---|---|---|---|---|")
    ours, best = {}, {}
    for row in rows:
        cell = row["type"], row["batch"]
        if "ms" in row and row["engine"] == "qlnet":
            ours[cell] = row["ms"]
        elif "ms" in row and row["engine"].startswith("PyTorch") and "without" not in row["engine"]:
            best[cell] = min(row["ms"], best.get(cell, row["ms"]))
    for row in rows:
        cell, cells = (row["type"], row["batch"]), [row["batch"], row["type"], row["engine"]]
        if "ms" in row:
            faster = "" if row["engine"] == "qlnet" or cell not in ours else f"{row['ms'] / ours[cell]:.2f}x"
            faster += " (best of PyTorch)" if faster and row["ms"] == best.get(cell) else ""
            cells += [f"{row['ms']:.3f}", f"{row['images_per_second']:.1f}", faster, f"{row['logits_differ_by']:.0e}"]
        else:
            cells += [row.get("error", "not timed"), "", "", ""]
        print("| " + " | ".join(map(str, cells)) + " |")
    print()
    for check in checks:
        print(f"{ {True: 'met', False: 'MISSED'}.get(check['met'], 'not measured'):12}  {check['target']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qlnet", default=str(ROOT / "target" / "release" / "qlnet"))
    parser.add_argument("--weights", type=Path, help="PyTorch's; without it a network from seed 0")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the script")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256], metavar="N")
    parser.add_argument("--types", nargs="+", choices=TYPES, help="all of them; on the CPU f32 and bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=420.0, help="seconds for all but torch.compile")
    parser.add_argument("--compile-seconds", type=float, default=240.0, help="for all that torch.compile does")
    parser.add_argument("--compile-modes", nargs="+", default=["reduce-overhead", "max-autotune"], metavar="MODE", help="torch.compile's; the second takes minutes for each type and batch")
    parser.add_argument("--targets", action="store_true", help="fail where a target is missed")
    parser.add_argument("--json", type=Path, help="write everything to this file as well")
    args = parser.parse_args()
    args.cuda = args.device.startswith("cuda")
    args.types = args.types or (["f32", "f16", "tf32", "bf16"] if args.cuda else ["f32", "bf16"])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["QLNET_CACHE"] = str(folder / "cache")
        if args.weights is None:
            args.weights = folder / "seeded.pth.tar"
            seeded_network(args.weights)
        about, comparison = machine(args), Comparison(args, *pictures(folder), folder)
        comparison.run()
    rows, checks = comparison.rows, targets(comparison.rows)
    show(about, rows, checks)
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "results": rows, "targets": checks}, indent=1) + "\n")
    wrong = [row for row in rows if row["engine"] == "qlnet"]
    wrong = [row for row in wrong if "ms" not in row or not row["logits_differ_by"] <= row["limit"]]
    for row in wrong:
        reason = row.get("error") or f"logits differ by {row['logits_differ_by']:.1e} of the largest, above {row['limit']:.0e}"
        print(f"qlnet, {row['type']}, batch {row['batch']}: {reason}", file=sys.stderr)
    sys.exit(1 if wrong or (args.targets and not all(check["met"] for check in checks)) else 0)


if __name__ == "__main__":
    main()
