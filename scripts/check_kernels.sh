#!/usr/bin/env bash
# Checks the kernels for GPUs as far as it can be done without one.
#
#     scripts/check_kernels.sh             everything that this machine has the compilers for
#     scripts/check_kernels.sh compilers   without the tests on this host
#
# On this host, with sanitizers: what kernels compute, and that mistakes planted in them are found. By nvcc, for each
# architecture that it knows: registers, and that no kernel spills them, divides 64-bit numbers, or moves single values
# where it is meant to move 16 bytes. By Clang: that every pointer of Metal's dialect says which memory it points into.
set -euo pipefail
cd "$(dirname "$0")/.."

kernels=src/network/gpu/kernels
types="F32 F16 BF16"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The compute capability that the build compiles an element type for: the oldest that nvcc 13 knows, and the oldest that
# has bfloat16.
oldest() { if [ "$1" = BF16 ]; then echo 80; else echo 75; fi; }

if [ "${1:-}" != compilers ]; then
    cargo test --release --locked --lib network::gpu::host_tests -- --include-ignored --test-threads=1
fi

# What a kernel's PTX must not have, and must have if its name says that it moves as much as it can.
check_ptx() {
    awk -v widest="_v$2$" '
        function finish() {
            if (name == "") return
            if (wide64) { print name ": divides 64-bit numbers"; bad = 1 }
            if (name ~ widest && name !~ /depthwise/ && (!loads || !stores)) {
                print name ": moves less than 16 bytes at a time"; bad = 1
            }
        }
        /\.entry/ {
            finish()
            name = $0; sub(/.*\.entry /, "", name); sub(/\(.*/, "", name)
            wide64 = loads = stores = 0
        }
        /(div|rem)\.[us]64/ { wide64 = 1 }
        /ld\.global.*\.v4\.[bfu]32/ { loads = 1 }
        /st\.global.*\.v4\.[bfu]32/ { stores = 1 }
        END { finish(); if (name == "") { print "no kernels"; bad = 1 } exit bad }
    ' "$1"
}

# A line for each kernel with its registers, from what ptxas -v says; fails if one needs local memory.
registers() {
    awk '
        /Compiling entry function/ { split($0, part, "\x27"); name = part[2] }
        /stack frame/ && !/ 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/ {
            print name ": spills" > "/dev/stderr"
            bad = 1
        }
        /Used [0-9]+ registers/ { sub(/.*Used /, ""); print name, $1 }
        END { exit bad }
    ' "$1" | sort
}

check_cuda() {
    local nvcc=$1 ptxas architectures architecture type capability
    ptxas=$(dirname "$nvcc")/ptxas
    architectures=$("$nvcc" --list-gpu-arch | sed 's/^compute_//' | awk '$1 >= 75' | sort -n)
    "$nvcc" --version | tail -2 | head -1
    for type in $types; do
        capability=$(oldest "$type")
        "$nvcc" -std=c++17 -ptx -arch="compute_$capability" -DQLNET_"$type" "$kernels/kernels.cu" -o "$work/$type.ptx"
        check_ptx "$work/$type.ptx" "$(if [ "$type" = F32 ]; then echo 4; else echo 8; fi)"
        : > "$work/table"
        for architecture in $architectures; do
            [ "$architecture" -ge "$capability" ] || continue
            "$ptxas" -v -arch="sm_$architecture" "$work/$type.ptx" -o "$work/cubin" 2> "$work/log" ||
                { cat "$work/log"; exit 1; }
            registers "$work/log" | sed "s/^/$architecture /" >> "$work/table"
        done
        # Architectures as columns.
        awk '
            !($1 in seen) { seen[$1]; columns[++n] = $1 }
            !($2 in known) { known[$2]; rows[++m] = $2 }
            { used[$2, $1] = $3 }
            END {
                printf "%-28s", "registers on sm_"
                for (i = 1; i <= n; i++) printf " %4s", columns[i]
                for (j = 1; j <= m; j++) {
                    printf "\n%-28s", rows[j]
                    for (i = 1; i <= n; i++) printf " %4s", used[rows[j], columns[i]]
                }
                print ""
            }
        ' "$work/table"
    done
    echo "CUDA: no kernel spills registers"
}

metal() {
    clang++ -x c++ -std=c++14 -fsyntax-only -ffreestanding -nostdinc -nostdinc++ --target=aarch64-linux-gnu \
        -Wall -Wextra -Werror -Wno-unknown-attributes -Wno-ignored-attributes -Wno-sign-compare \
        -DADDRESS_SPACES -DQLNET_"$2" -I tests/gpu/metal "$1/kernels.metal"
}

check_metal() {
    local type
    clang++ --version | head -1
    for type in $types; do
        metal "$kernels" "$type"
    done
    # The check itself, by pointers that do not say where they point.
    cp "$kernels"/* "$work"
    sed -i.before 's/GLOBAL const Element \*bias/const Element *bias/' "$work/block.h"
    if metal "$work" F32 2> "$work/log"; then
        echo "Clang does not see that a pointer lacks its address space"
        exit 1
    fi
    echo "Metal: every pointer has its address space"
}

nvcc=
for candidate in "${NVCC:-}" "$(command -v nvcc || true)" "${CUDA_HOME:-}/bin/nvcc" "${CUDA_PATH:-}/bin/nvcc" \
    /usr/local/cuda/bin/nvcc; do
    if [ -z "$nvcc" ] && [ -n "$candidate" ] && [ -x "$candidate" ]; then nvcc=$candidate; fi
done
if [ -n "$nvcc" ]; then check_cuda "$nvcc"; else echo "CUDA: skipped, no nvcc; CUDA_HOME names the toolkit's folder"; fi
if command -v clang++ > /dev/null; then check_metal; else echo "Metal: skipped, no clang++"; fi
