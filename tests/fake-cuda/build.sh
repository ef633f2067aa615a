#!/usr/bin/env bash
# Makes a libcuda.so.1 and a libcublas.so whose CUDA device is this computer: the whole program runs on them.
#
#     tests/fake-cuda/build.sh FOLDER
#
# Its kernels are candle's own sources and ours, compiled by the host's compiler, CXX or g++, with CUDA's headers from
# CUDA_HOME. There is no cuRAND: nothing here draws random numbers on a device. CANDLE_KERNELS names the folder of
# candle-kernels; otherwise Cargo is asked for it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$1
mkdir -p "$out/objects"
out=$(cd "$out" && pwd)
objects=$out/objects
cxx=${CXX:-g++}
include=${CUDA_HOME:?names the folder of the CUDA toolkit, whose headers are needed}/include
cuda_major=$(sed -n 's/^#define CUDA_VERSION \([0-9]*\)...$/\1/p' "$include/cuda.h")
if [ -z "${CANDLE_KERNELS:-}" ]; then
    manifest=$(cd "$root" && cargo metadata --locked --format-version 1 --features cuda |
        grep -o '"manifest_path":"[^"]*/candle-kernels-[^"]*/Cargo.toml"' | head -1 | cut -d'"' -f4)
    CANDLE_KERNELS=$(dirname "$manifest")
fi

# With strict aliasing, candle's bfloat16 would be zeros: it reads them as other types.
flags=(-std=c++17 -O2 -fPIC -fno-strict-aliasing -w -I "$here" -I "$include" -I "$include/cccl")

# A file of kernels with a line for each that tells the device its name. The preprocessor finds the names.
kernels() {
    local name=$1 source=$2 type=${3:-}
    local unit=$objects/$name.cpp options=("${flags[@]}")
    [ -z "$type" ] || options+=("-D$type")
    # `__global__` stays a word here, and the names are what follows it and the type.
    printf '#include "kernel.h"\n#undef __global__\n#define __global__ __kernel_here__\n#include "%s"\n' "$source" > "$unit"
    local names
    names=$("$cxx" "${options[@]}" -E -P "$unit" | tr '\n' ' ' | grep -oE '__kernel_here__ +void +[A-Za-z_0-9]+ *\(' |
        sed -E 's/.* ([A-Za-z_0-9]+) *\($/REGISTER(\1)/' | sort -u)
    printf '#include "kernel.h"\n#include "%s"\n%s\n' "$source" "$names" > "$unit"
    "$cxx" "${options[@]}" -c "$unit" -o "$objects/$name.o"
}

jobs=()
for name in affine binary cast conv fill reduce ternary unary; do
    kernels "candle-$name" "$CANDLE_KERNELS/src/$name.cu" & jobs+=($!)
    [ $((${#jobs[@]} % 2)) != 0 ] || wait "${jobs[@]: -2}"
done
for type in F32 F16 BF16; do
    kernels "ours-$type" "$root/src/network/gpu/kernels/kernels.cu" "QLNET_$type" & jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done

for name in machine driver memory; do "$cxx" "${flags[@]}" -c "$here/$name.cpp" -o "$objects/$name.o"; done
"$cxx" "${flags[@]}" -O3 -march=native -c "$here/blas.cpp" -o "$objects/blas.o"
# candle's helpers are the same in each of its files, and on a device no names of one file meet those of another.
"$cxx" -shared -pthread -Wl,-z,muldefs -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "$objects"/{machine,driver,memory}.o "$objects"/{candle,ours}-*.o
echo "libcublas.so.$cuda_major { global: cublas*; };" > "$objects/blas.map"
"$cxx" -shared -pthread -Wl,-soname,"libcublas.so.$cuda_major" -Wl,--version-script="$objects/blas.map" \
    -o "$out/libcublas.so.$cuda_major" "$objects/blas.o" "$out/libcuda.so.1"
