#!/usr/bin/env bash
# Everything that a short loan of an NVIDIA card is good for, in under eight minutes: what the program finds, whether
# the card computes what the CPU does, how fast it is beside PyTorch, and where the time goes.
#
#     scripts/gpu_session.sh PROGRAM [OUT] [WEIGHTS]     PROGRAM built by scripts/build-cuda.sh; OUT is gpu-session unless given
#     DEVICE=cpu BATCHES="1 4" scripts/gpu_session.sh PROGRAM    tries the script without a card
#     TIME=1200 scripts/gpu_session.sh PROGRAM                   so many seconds instead of 470
#
# Needs the driver and Python with PyTorch and NumPy (PYTHON names another than python3); no network, no Rust. Without
# WEIGHTS (a full-size checkpoint in PyTorch's format) the network has seeded ones. Each step writes its file in OUT, and the
# exit code says whether all of them passed.
set -uo pipefail
program=$(realpath "${1:?which program?}")
out=$(realpath -m "${2:-gpu-session}")
weights=${3:+$(realpath "$3")}
time=${TIME:-470}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
# For the comparison, and for torch.compile besides, whose most thorough mode there is no time for.
engines=$((time * 20 / 100)) compilation=$((time * 45 / 100))
failed=()
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export QLNET_CACHE=$work/cache

# The libraries that PyTorch brought, where the program finds none of its version.
if [ "$device" != cpu ] && ! "$program" devices | grep -q '^cuda:0 *ready'; then
    found=$("$python" -c 'import nvidia, pathlib; print(*sorted({str(f.parent) for p in nvidia.__path__ for f in pathlib.Path(p).glob("**/lib*.so*")}), sep=":")')
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$found
fi

# A step's name, its seconds at most, and its command.
step() {
    local name=$1 start=$SECONDS left=$((time - SECONDS))
    if timeout "$((left < 1 ? 1 : left < $2 ? left : $2))" "${@:3}" > "$out/$name.txt" 2>&1; then
        echo "$name: passed, $((SECONDS - start)) s"
    else
        echo "$name: FAILED with $?, $((SECONDS - start)) s; the end of $out/$name.txt:"
        tail -4 "$out/$name.txt"
        failed+=("$name")
    fi
}

# What the built-in network makes of digits, on the card and on the CPU, in each type: all logits, accuracy, symmetry.
agreement() {
    "$python" - "$program" "$device" << 'END'
import json, subprocess, sys
program, device = sys.argv[1:]
def run(*words):
    done = subprocess.run([program, *words, "--model", "qlnet-digits", "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[0])
    return [json.loads(line) for line in done.stdout.splitlines()]
def logits(*words):
    predictions = [p for row in run("classify", "samples/digits", "-k", "10", *words) for p in sorted(row["predictions"], key=lambda p: p["index"])]
    return [p["logit"] for p in predictions]
types = {"f32": 1e-4, "tf32": 2e-3, "f16": 2e-3, "bf16": 2e-2}
if device == "cpu":
    del types["tf32"]
expected = logits("--device", "cpu")
accuracy = run("eval", "samples/digits-held-out.tar", "--device", "cpu")[0]["top1"]
wrong = 0
def check(what, compute):
    global wrong
    try:
        right, text = compute()
    except Exception as error:
        right, text = False, error
    wrong += not right
    print(f"{'ok' if right else 'WRONG':6} {what}: {text}", flush=True)
def close(options, limit):
    ours = logits("--device", device, *options)
    error = max(abs(a - b) for a, b in zip(ours, expected, strict=True)) / max(map(abs, expected))
    return error <= limit, f"logits differ by {error:.1e} of the largest, {limit:.0e} allowed"
def accurate(options):
    ours = run("eval", "samples/digits-held-out.tar", "--batch-size", "100", "--device", device, *options)[0]
    return abs(ours["top1"] - accuracy) <= 1.5 / ours["images"], f"top 1 {ours['top1']:.4f}, {accuracy:.4f} on the CPU"
for name, limit in types.items():
    options = ["--dtype", name]
    check(f"classify, {name}", lambda: close(options, limit))
    check(f"classify one by one, {name}", lambda: close([*options, "--batch-size", "1"], limit))
    check(f"eval, {name}", lambda: accurate(options))
check("symmetry", lambda: (True, f"passed, {len(run('symmetry', '--device', device)[0]['families'])} families"))
sys.exit(wrong > 0)
END
}

# With our kernels and without them, for one network.
plain() {
    for kernels in 1 0; do
        echo "QLNET_GPU_KERNELS=$kernels"
        QLNET_GPU_KERNELS=$kernels "$program" bench --weights "$weights" --device "$device" \
            --batch-size "${batches// /,}" --warmup 1 --repetitions 3 --duration 1 || return
    done
}

# What it costs that a command opens a device: one digit, in milliseconds. The driver keeps kernels that it has compiled in
# CUDA_CACHE_PATH; the first run finds it empty, and the last ones do without, as in a container that cannot write there.
opening() {
    local chosen=auto
    [ "$device" != cpu ] || chosen=cpu
    once() {
        local start=${EPOCHREALTIME/[.,]/}
        env CUDA_CACHE_PATH="$compiled" "${@:3}" "$program" classify samples/digits/3-45.png --model qlnet-digits --device "$1" > /dev/null || return
        echo "$1$2: $(((${EPOCHREALTIME/[.,]/} - start) / 1000)) ms"
    }
    once $chosen ', no kernels compiled before' &&
        once $chosen && once cpu && once $chosen && once cpu && once $chosen && once cpu &&
        once $chosen ', keeps no kernels' CUDA_CACHE_DISABLE=1
}
export -f agreement plain opening
if [ -z "$weights" ]; then
    weights=$work/seeded.pth.tar
    PYTHONPATH=scripts "$python" -B -c 'import sys; from compare_engines import seeded_network; seeded_network(sys.argv[1])' "$weights" || exit 1
fi
batches=${BATCHES:-1 32 256}
compiled=$work/compiled
export compiled program device python weights batches

step devices 30 "$program" devices
step opening 60 bash -c opening
step agreement 90 bash -c agreement
step plain 60 bash -c plain
if [ "$device" != cpu ] && command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        step "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" classify samples/digits/3-45.png --model qlnet-digits --device "$device"
    done
fi
# shellcheck disable=SC2086
step compare $((engines + compilation + 60)) "$python" -B scripts/compare_gpu.py --qlnet "$program" --device "$device" --weights "$weights" \
    --budget "$engines" --compile-seconds "$compilation" --compile-modes reduce-overhead --targets --json "$out/compare.json" --batch ${batches}
bench=("$program" bench --weights "$weights" --device "$device" --batch-size 32 --warmup 1 --repetitions 1 --duration 0)
if command -v nsys > /dev/null; then
    step nsys 60 nsys profile --trace cuda --stats true --force-overwrite true --output "$work/profile" "${bench[@]}"
fi
if command -v ncu > /dev/null; then
    metrics=gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__throughput.avg.pct_of_peak_sustained_elapsed
    step ncu 60 ncu --metrics "$metrics" --print-summary per-kernel --launch-count 150 "${bench[@]}"
fi
grep -E '^(\||met|MISSED|not measured)' "$out/compare.txt"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
