#!/usr/bin/env bash
# Builds the program for CUDA on a Linux machine that needs no GPU, no driver and no toolkit.
#
#     scripts/build-cuda.sh                        the program, in Cargo's target folder
#     scripts/build-cuda.sh --archive              and the archive of a release, as scripts/release.sh makes it
#     CUDA_COMPUTE_CAP=75 scripts/build-cuda.sh    for cards before A100 and RTX 30
#
# NVIDIA's compiler and headers come from packages of PyPI, 100 MB, once, into QLNET_CUDA_TOOLKIT or the user's folder
# for caches; CUDA_HOME names a toolkit to take instead. The first build compiles candle's kernels, which takes ten
# minutes of two processors. At last the program must start without any of NVIDIA's libraries, and be linked with none.
set -euo pipefail
cd "$(dirname "$0")/.."

# cudarc knows CUDA up to 13.4; drivers from 580 on run what 13.0 makes.
packages=(
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96
)
# Linked with by name. The program has its own functions that open them: empty ones will do.
linked=(cuda nvrtc curand cublas cublasLt)

if [ -z "${CUDA_HOME:-}" ]; then
    folder=${QLNET_CUDA_TOOLKIT:-${XDG_CACHE_HOME:-$HOME/.cache}/qlnet-cuda-13.0}
    export CUDA_HOME=$folder/nvidia/cu13
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        python3 -m pip install --quiet --no-deps --only-binary :all: --target "$folder" "${packages[@]}"
        chmod -R u+x "$CUDA_HOME/bin" "$CUDA_HOME/nvvm/bin"
        ln -s lib "$CUDA_HOME/lib64"
        for library in "${linked[@]}"; do
            echo | cc -shared -x c - -o "$CUDA_HOME/lib/lib$library.so" -Wl,-soname,"lib$library.so"
        done
        (cd "$CUDA_HOME/lib" && ln -sf libcudart.so.13 libcudart.so)
        touch "$folder/complete"
    fi
fi
export PATH=$CUDA_HOME/bin:$PATH
# candle's kernels are made for it and later cards. 90 would be for H100 and H200 alone.
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}

start=$SECONDS
cargo build --release --locked --features cuda --bin qlnet
program=${CARGO_TARGET_DIR:-target}/release/qlnet
seconds=$((SECONDS - start))

needed=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
if grep -E '^lib(cu|nv)' <<< "$needed"; then
    echo "the program is linked with these, and would not start without them" >&2
    exit 1
fi
# Without variables, so without a path to any library that is not the system's.
env -i "$program" --help > /dev/null
label=$(env -i "$program" classify samples/digits/3-45.png --model qlnet-digits --device cpu -k 1 --csv | tail -1)
case $label in *,3,*) ;; *) echo "it takes a 3 for something else: $label" >&2; exit 1 ;; esac

echo "$program"
echo "built in       $seconds s, with $(nvcc --version | sed -n 's/.*release \([^,]*\),.*/CUDA \1/p')"
echo "size           $(stat -c %s "$program") bytes"
echo "compute cap.   from ${CUDA_COMPUTE_CAP:0:$((${#CUDA_COMPUTE_CAP} - 1))}.${CUDA_COMPUTE_CAP: -1} on"
echo "needs          $(tr '\n' ' ' <<< "$needed")"

if [ "${1:-}" = --archive ]; then
    FEATURES=cuda scripts/release.sh
fi
