#!/usr/bin/env bash
# Runs a program that was built with CUDA on a CUDA device that is this computer (tests/fake-cuda), beside --device cpu.
#
#     scripts/fake-cuda.sh target/release/qlnet                        on the network that is built in
#     scripts/fake-cuda.sh target/release/qlnet --weights FILE         and on a network of full size
#     scripts/fake-cuda.sh target/release/qlnet --tests PROGRAM        and threads that share a device, by tests/network.rs
#
# Needs CUDA's headers (CUDA_HOME, which scripts/build-cuda.sh fetches) and g++, no GPU. Shows what a driver would: that
# the program calls it rightly, what the kernels compute, how many are launched, what is said when something is
# missing. Nothing here tells of speed, races, or the compiler's code for GPUs. QLNET_FAKE_CUDA names a folder to keep the
# device in. Copies to the host arrive when they are waited for, unless FAKE_CUDA_LAZY is empty.
#
# PROGRAM is what `cargo test --release --features cuda --test network --no-run` makes; it needs libcudart, of CUDA_HOME.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1")
shift
weights='' tests=''
while [ $# -gt 0 ]; do
    case $1 in
        --weights) weights=$(realpath "$2") ;;
        --tests) tests=$(realpath "$2") ;;
        *) echo "$1 is not known" >&2; exit 2 ;;
    esac
    shift 2
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
device=${QLNET_FAKE_CUDA:-$work/device}
[ -e "$device/libcuda.so.1" ] || tests/fake-cuda/build.sh "$device"
export FAKE_CUDA_LAZY=${FAKE_CUDA_LAZY-1}
cudart=${CUDA_HOME:-}/lib64
# Where the program would look for NVIDIA's own libraries.
unset CUDA_HOME CUDA_PATH VIRTUAL_ENV CONDA_PREFIX
failed=0
fail() { echo "FAILED: $*"; failed=1; }

# The program with the device and what the driver counts.
on_device() { LD_LIBRARY_PATH=$device FAKE_CUDA_TRACE=$work/trace "$program" --quiet "$@"; }
count() { awk -v name="$1" '$1 == name { print $2 }' "$work/trace"; }
# The driver finds no fault with what it was asked.
faultless() { [ "$(count errors)" = 0 ] || fail "$1: the driver found $(count errors) faults"; }

# The largest difference of logits in two outputs of classify, relative to the largest logit of the first.
difference() {
    awk -F, '
        FNR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; file++; next }
        file == 1 { logit[$1, $at["index"]] = $at["logit"]; n++; size = $at["logit"] ^ 2; if (size > largest) largest = size }
        file == 2 { change = ($at["logit"] - logit[$1, $at["index"]]) ^ 2; n--; if (!(change <= most)) most = change }
        END { print (n == 0 ? sprintf("%.1e", sqrt(most / largest)) : "rows") }' "$1" "$2"
}

# Launches and matrix products of one pass: those of two passes less those of one.
of_a_pass() {
    local passes launches=(0) gemms=(0)
    for passes in 1 2; do
        on_device bench --device cuda --warmup 0 --duration 0 --repetitions $passes --batch-size 1 --json "$@" > /dev/null
        launches+=("$(count launches)") gemms+=("$(count gemms)")
    done
    echo "$((launches[2] - launches[1])) $((gemms[2] - gemms[1]))"
}

printf '%-14s %-5s %-8s %12s %9s %9s %7s %9s\n' network type kernels difference allowed launches gemms 'peak MB'
compare() {
    local name=$1 types=$2 images
    IFS=, read -ra images <<< "$3"
    shift 3
    "$program" --quiet classify "${images[@]}" -k 1000 --csv --device cpu "$@" > "$work/cpu.csv"
    for type in $types; do
        for kernels in 1 0; do
            export QLNET_GPU_KERNELS=$kernels
            local case="$name, $type, QLNET_GPU_KERNELS=$kernels" allowed launches found
            case $type in f64) allowed=1e-6 ;; f32) allowed=1e-4 ;; f16) allowed=2e-3 ;; *) allowed=2e-2 ;; esac
            on_device classify "${images[@]}" -k 1000 --csv --device cuda --dtype "$type" "$@" > "$work/cuda.csv" || fail "$case: classify"
            faultless "$case"
            local gemms peak
            peak=$(($(count peak_bytes) / 1000000))
            found=$(difference "$work/cpu.csv" "$work/cuda.csv")
            read -r launches gemms <<< "$(of_a_pass --dtype "$type" "$@")"
            printf '%-14s %-5s %-8s %12s %9s %9s %7s %9s\n' "$name" "$type" "$kernels" "$found" "$allowed" "$launches" "$gemms" "$peak"
            awk "BEGIN { exit !($found <= $allowed) }" || fail "$case: logits differ by $found"
            # Float64 has no kernels of ours.
            [ "$kernels" = 0 ] || [ "$type" = f64 ] || [ "$launches" -le 100 ] || fail "$case: $launches launches"
        done
    done
    unset QLNET_GPU_KERNELS
}
compare qlnet-digits 'f32 f64 f16 bf16' samples/digits --model qlnet-digits
[ -z "$weights" ] || compare "$(basename "$weights" | cut -c1-14)" 'f32 f16 bf16' samples/digits/3-45.png,samples/digits/7-81.png --weights "$weights"

# Images of 15 MB together, which reach the device in four pieces through two of page-locked memory, or through none.
large=(classify samples/digits -k 10 --csv --crop 700 --model qlnet-digits)
"$program" --quiet "${large[@]}" --device cpu > "$work/cpu.csv"
for refused in '' 1; do
    FAKE_CUDA_LOCKS_NO_MEMORY=$refused on_device "${large[@]}" --device cuda > "$work/cuda.csv" || fail 'large images'
    faultless 'large images'
    found=$(difference "$work/cpu.csv" "$work/cuda.csv")
    echo "large images${refused:+, no page-locked memory}: logits differ by $found, $(count copies_to_device) copies to the device"
    awk "BEGIN { exit !($found <= 1e-4) }" || fail "large images: $found"
done

# The other commands, with what must be the same on both devices.
echo
field() { grep -oE "\"$1\":[^,}]*" | head -1; }
same() {
    local what=$1 name=$2
    shift 2
    local cpu cuda
    cpu=$("$program" --quiet "$@" --device cpu --json | field "$name")
    cuda=$(on_device "$@" --device cuda --json | field "$name") || fail "$what on cuda"
    faultless "$what"
    echo "$what: $cuda on cuda, $cpu on cpu"
    if [ -z "$cpu" ] || [ "$cpu" != "$cuda" ]; then fail "$what"; fi
}
same eval top1 eval samples/digits-held-out.tar --model qlnet-digits
same symmetry passed symmetry --model qlnet-digits
# Values are compared as logits are, relative to the largest of all images.
"$program" --quiet features samples/digits --model qlnet-digits --device cpu --out "$work/cpu.csv"
for type in f32 f16; do
    on_device features samples/digits --model qlnet-digits --device cuda --dtype $type --out "$work/cuda.csv" || fail "features, $type"
    faultless "features, $type"
    found=$(awk -F, '
        FNR == 1 { if (NR > FNR && $0 != header) wrong = "header"; header = $0; next }
        NR == FNR { for (i = 2; i <= NF; i++) { value[$1, i] = $i; if ($i ^ 2 > largest) largest = $i ^ 2; n++ } next }
        { for (i = 2; i <= NF; i++) { if (!(($1, i) in value)) wrong = "rows"; change = ($i - value[$1, i]) ^ 2; n--; if (!(change <= most)) most = change } }
        END { print (wrong ? wrong : n ? "rows" : sprintf("%.1e", sqrt(most / largest))) }' "$work/cpu.csv" "$work/cuda.csv")
    case $type in f32) allowed=1e-4 ;; *) allowed=2e-3 ;; esac
    echo "features, $type: $(($(wc -l < "$work/cuda.csv") - 1)) rows, which differ by $found"
    awk "BEGIN { exit !(\"$found\" ~ /^[0-9]/ && $allowed >= \"$found\" + 0) }" || fail "features, $type: $found"
done
if [ -n "$tests" ]; then
    said=$(LD_LIBRARY_PATH=$device:$cudart FAKE_CUDA_TRACE=$work/trace QLNET_TEST_DEVICE=cuda "$tests" --exact threads_share_a_device 2>&1) ||
        fail "threads: $said"
    grep -q '1 passed' <<< "$said" || fail "threads: $said"
    faultless threads
    echo "threads that share a device: $(count launches) launches, $(count gemms) products"
fi

# What is said when something is missing. One line, exit code 1, and auto takes the CPU.
echo
refused() {
    local what=$1 words=$2
    shift 2
    local said code=0
    said=$(env "$@" "$program" --quiet classify samples/digits/3-45.png --model qlnet-digits --device cuda 2>&1) || code=$?
    echo "$what: $said"
    if [ "$code" != 1 ] || [ "$(wc -l <<< "$said")" != 1 ] || ! grep -q "$words" <<< "$said"; then
        fail "$what: exit code $code"
    fi
    # Without a GPU there is nothing to tell.
    local notes=0
    said=$(env "$@" "$program" classify samples/digits/3-45.png --model qlnet-digits -k 1 2> "$work/notes") || fail "$what: auto"
    grep -q '3$' <<< "$said" || fail "$what: auto said $said"
    notes=$(grep -c '^note: ' "$work/notes" || true)
    case $what in 'no driver' | 'no GPU') ;; *) notes=$((notes - 1)) ;; esac
    [ "$notes" = 0 ] || fail "$what: auto's notes are $(cat "$work/notes")"
}
mkdir "$work/driver"
ln -s "$device/libcuda.so.1" "$work/driver"
refused 'no driver' 'no NVIDIA driver' LD_LIBRARY_PATH=
refused 'no GPU' 'sees no GPU' LD_LIBRARY_PATH="$device" FAKE_CUDA_DEVICES=0
refused 'no cuBLAS' 'libcublas.so' LD_LIBRARY_PATH="$work/driver"
refused 'an old driver' 'too old' LD_LIBRARY_PATH="$device" FAKE_CUDA_OLD_DRIVER=1
refused 'PTX refused' 'unsupported toolchain' LD_LIBRARY_PATH="$device" FAKE_CUDA_OLD_DRIVER=ptx
refused 'an old card' 'the GPU is older' LD_LIBRARY_PATH="$device" FAKE_CUDA_CAPABILITY=7.0

# Too little memory for one image; on a small device, where batches have to be smaller than was asked for; and at one
# moment of a batch, after which the program goes on with fewer images. What it finds is the same. Where a moment is one that
# it does not go on from, it says so.
echo
eval=(eval samples/digits-held-out.tar --model qlnet-digits --batch-size 64)
said=$(FAKE_CUDA_MEMORY=1000000 on_device "${eval[@]}" --device cuda 2>&1) || true
echo "no memory: $said"
grep -q 'try --batch-size' <<< "$said" || fail 'no memory'
faultless 'no memory'
expected=$("$program" --quiet "${eval[@]}" --device cpu --json | field top1)
on_device "${eval[@]}" --device cuda > /dev/null
allocations=$(count allocations) peak=$(count peak_bytes)
for part in 2 10 25; do
    found=$(FAKE_CUDA_MEMORY=$((peak / part)) on_device "${eval[@]}" --device cuda --json 2>&1 | field top1) || true
    echo "1/$part of $((peak / 1000000)) MB: $found; $(count refused) refused, $(count trims) times memory given back"
    [ "$found" = "$expected" ] || fail "1/$part of the memory: $found, and $expected on the CPU"
    faultless "1/$part of the memory"
done
went_on=0 tried=0
for number in $(seq $((allocations / 2)) 7 $((allocations / 2 + 50))); do
    said=$(FAKE_CUDA_FAIL_ALLOCATION=$number on_device "${eval[@]}" --device cuda --json 2>&1) || true
    tried=$((tried + 1))
    [ "$(count refused)" = 1 ] || fail "allocation $number was not refused"
    if [ "$(field top1 <<< "$said")" = "$expected" ]; then went_on=$((went_on + 1))
    elif ! grep -q '^error: cuda:0 has too little memory' <<< "$said"; then fail "allocation $number fails: $said"; fi
    faultless "allocation $number"
done
echo "one of $tried allocations fails: $went_on times the program went on"
[ $((went_on * 2)) -ge $tried ] || fail 'the program does not go on'

[ "$failed" = 0 ] && echo "everything is as it should be"
exit "$failed"
