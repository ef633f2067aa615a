#!/usr/bin/env bash
# Looks for what unsafe code may do wrong: memory that is read or written beside, after or before it is there, and races.
#
#     scripts/check_memory.sh [asan|tsan|assertions|valgrind|miri|all]...
#
# asan         AddressSanitizer over the kernels at every level of the CPU, decoders, checkpoints and `qlnet classify`;
#              with clang, also over the C code of libjpeg-turbo
# tsan         ThreadSanitizer over the kernels and how their work is split, with a standard library that has it too
# assertions   the same tests with debug assertions (those of the standard library check what unsafe functions ask
#              for), checks of overflow, and fields of structures in another order
# valgrind     Memcheck over the kernels for SSE2 and AVX2, and over `qlnet classify`; it has no AVX-512, and tells all
#              libraries that the CPU has none
# miri         what is plain Rust, in an interpreter that knows all of the language's rules
#
# First each tool has to find faults that scripts/planted makes, and nothing where that makes none.
#
# Needs Linux on x86-64. A nightly toolchain is taken if rustup has one, else the compiler at hand is told to allow what
# is not stable. tsan needs its source, of the standard library (rustup +nightly component add rust-src; or the Debian
# package rust-src, whose folder with Cargo.toml, library, QLNET_RUST_LIBRARY names), miri the component miri, valgrind
# and clang the Debian packages of those names. Each tool has a folder for its builds in target, of about 2 GB; all of it
# takes about an hour of two cores, most of it for builds. QLNET_REFERENCE_DIR names a folder with a full-size checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."

host=x86_64-unknown-linux-gnu
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "this is for Linux on x86-64"; exit 1; }
root=${CARGO_TARGET_DIR:-$PWD/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Lines and names in what the tools say.
export CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only

if cargo +nightly --version > /dev/null 2>&1; then
    unstable() { cargo +nightly "$@"; }
    sysroot=$(rustc +nightly --print sysroot)
else
    unstable() { RUSTC_BOOTSTRAP=1 cargo "$@"; }
    sysroot=$(rustc --print sysroot)
fi

# Says a line about what follows.
say() { printf '\n== %s\n' "$*"; }

# A file of what a tool said, its exit status, and what it has to say.
found() {
    if [ "$2" = 0 ] || ! grep -q "$3" "$1"; then
        cat "$1"
        echo "the planted fault was not found"
        exit 1
    fi
}

# Whether a tool finds the faults: `planted FAULT=WORDS... -- RUNNER...`. The program is in $planted.
planted() {
    local faults=() fault status
    while [ "$1" != -- ]; do faults+=("$1"); shift; done
    shift
    for fault in "${faults[@]}"; do
        status=0
        "$@" "$planted" "${fault%%=*}" > "$work/log" 2>&1 || status=$?
        if [ "${fault#*=}" = silence ]; then
            [ "$status" = 0 ] || { cat "$work/log"; echo "a fault was found where there is none"; exit 1; }
        else
            found "$work/log" "$status" "${fault#*=}"
        fi
        echo "planted fault ${fault%%=*}: ${fault#*=}"
    done
}

# Builds scripts/planted and the tests named by the arguments, both with the flags of a tool.
build() {
    unstable build --release "${std[@]}" --target $host --manifest-path scripts/planted/Cargo.toml
    planted=$CARGO_TARGET_DIR/$host/release/planted
    tests "$@" --no-run
}

# Runs built tests: `tests ARGUMENTS OF CARGO -- ARGUMENTS OF THE TESTS`.
tests() {
    # The crate of the kernels takes what it needs from the versions of all.
    local locked=(--locked)
    if [[ " $* " == *" --manifest-path "* ]]; then locked=(); fi
    unstable test --release "${locked[@]}" "${std[@]}" --target $host "$@"
}

# The levels of this CPU, from a program that was built.
levels() { "$1" devices --json | sed 's/.*"instruction_sets":\[\([^]]*\)\].*/\1/; s/[",]/ /g'; }

asan() (
    say "AddressSanitizer"
    export CARGO_TARGET_DIR=$root/memory-asan RUSTFLAGS=-Zsanitizer=address
    std=()
    if command -v clang > /dev/null && command -v clang++ > /dev/null; then
        export CC=clang CXX=clang++ CFLAGS="-fsanitize=address -g1" CXXFLAGS="-fsanitize=address -g1"
    else
        echo "C code is left out: no clang"
    fi
    build --lib --test network --test preprocess --test classify --test checkpoint
    planted none=silence read-behind=heap-buffer-overflow read-before=heap-buffer-overflow \
        write-behind=heap-buffer-overflow freed=heap-use-after-free -- env
    # What is never freed is no fault: statics of libraries.
    export ASAN_OPTIONS=detect_leaks=0
    for level in $(levels "$CARGO_TARGET_DIR/$host/release/qlnet"); do
        say "AddressSanitizer, $level"
        QLNET_SIMD=$level tests --lib --test network -- --skip network::gpu --skip every_level
    done
    say "AddressSanitizer, files"
    tests --test preprocess --test classify --test checkpoint
)

# A crate of the kernels alone, of the files where they are: it compiles in a minute, and needs neither candle nor C.
kernels_crate() {
    local crate=$root/memory-kernels
    mkdir -p "$crate/src"
    {
        printf '[package]\nname = "kernels"\nversion = "0.0.0"\nedition = "2024"\npublish = false\n\n[workspace]\n\n'
        echo '[dependencies]'
        grep -E '^(bytemuck|libc|memmap2|rand|rand_distr|rayon|serde) = ' Cargo.toml
    } > "$crate/Cargo.toml"
    cp Cargo.lock "$crate/Cargo.lock"
    cat > "$crate/src/lib.rs" << END
#![allow(dead_code, missing_docs, unused_imports)]
#[path = "$PWD/src/simd.rs"]
mod simd;
mod network {
    #[path = "$PWD/src/network/cpu/mod.rs"]
    pub mod cpu;
}
mod weights {
    #[path = "$PWD/src/weights/config.rs"]
    pub mod config;
}
mod error {
    pub type Reason = String;
    macro_rules! ensure {
        (\$condition:expr, \$(\$words:tt)*) => { if !\$condition { return Err(format!(\$(\$words)*)); } };
    }
    pub(crate) use ensure;
}
#[cfg(test)]
mod random {
    pub mod tests {
        use rand::{SeedableRng, rngs::ChaCha8Rng};
        use rand_distr::{Distribution, Uniform};
        pub fn test_stream(seed: u64) -> ChaCha8Rng {
            ChaCha8Rng::seed_from_u64(seed)
        }
        pub fn uniform(count: usize, range: std::ops::Range<f32>, rng: &mut ChaCha8Rng) -> Vec<f32> {
            Uniform::try_from(range).unwrap().sample_iter(rng).take(count).collect()
        }
    }
}
END
    kernels=(--manifest-path "$crate/Cargo.toml" --lib)
}

tsan() (
    say "ThreadSanitizer"
    local library=${QLNET_RUST_LIBRARY:-$sysroot/lib/rustlib/src/rust/library}
    if [ ! -e "$library/Cargo.lock" ]; then
        echo "skipped: no source of the standard library; rustup +nightly component add rust-src"
        return
    fi
    export CARGO_TARGET_DIR=$root/memory-tsan RUSTFLAGS=-Zsanitizer=thread
    if [ -n "${QLNET_RUST_LIBRARY:-}" ]; then export __CARGO_TESTS_ONLY_SRC_ROOT=$library; fi
    std=(-Zbuild-std)
    kernels_crate
    build "${kernels[@]}"
    planted none=silence no-race=silence race="data race" -- env
    # Threads share what a block is made in, and the memory of its output. Whether two of them meet is chance.
    for threads in 2 5 2 5 2 5; do
        RAYON_NUM_THREADS=$threads tests "${kernels[@]}" -- --skip every_level
    done
)

assertions() (
    say "Debug assertions, overflow, other layouts"
    export CARGO_TARGET_DIR=$root/memory-assertions RUSTFLAGS=-Zrandomize-layout
    export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
    std=()
    build --lib --test network --test preprocess --test classify --test checkpoint
    planted none=silence misaligned="misaligned pointer" overflow="attempt to add with overflow" -- env
    tests --lib --test network --test preprocess --test classify --test checkpoint -- --skip network::gpu
)

check_with_valgrind() (
    say "valgrind"
    if ! command -v valgrind > /dev/null; then echo "skipped: no valgrind"; return; fi
    valgrind --version
    # The program as it is, with names.
    export CARGO_TARGET_DIR=$root/memory-valgrind
    unset RUSTFLAGS
    cargo build --release --manifest-path scripts/planted/Cargo.toml
    planted=$CARGO_TARGET_DIR/release/planted
    cargo test --release --locked --lib --test network --no-run 2>&1 | tee "$work/built"
    cargo build --release --locked --bin qlnet
    local runner=(valgrind --quiet --error-exitcode=99 --num-callers=40) program=$CARGO_TARGET_DIR/release/qlnet
    planted none=silence read-behind="Invalid read" read-before="Invalid read" write-behind="Invalid write" \
        freed="Invalid read" undefined="depends on uninitialised" -- "${runner[@]}"
    local binaries; binaries=$(sed -n 's/.*Executable.*(\(.*\))/\1/p' "$work/built")
    export QLNET_CACHE=$work/cache HF_HUB_OFFLINE=1
    for level in portable avx2; do
        say "valgrind, $level"
        export QLNET_SIMD=$level
        "${runner[@]}" $(grep /qlnet- <<< "$binaries") --test-threads=1 --skip every_level network::cpu
        # Networks of full width take hours.
        "${runner[@]}" $(grep /network- <<< "$binaries") --test-threads=1 every_step half_precision threads_share
        # A JPEG, a PNG and a checkpoint, which is folded and packed, and then found packed.
        "${runner[@]}" "$program" classify --model qlnet-digits samples/digits/1-21.png tests/fixtures/decode/*sub*.jpg
        for run in first second; do
            "${runner[@]}" "$program" classify --weights tests/fixtures/two-filters.pth.tar samples/digits/1-21.png
        done
        if [ -n "${QLNET_REFERENCE_DIR:-}" ]; then
            local images; images=$(find "$QLNET_REFERENCE_DIR" -name '*.jpg' | sort | head -2)
            "${runner[@]}" "$program" classify --weights "$QLNET_REFERENCE_DIR"/*.pth.tar $images
        fi
    done
)

check_with_miri() (
    say "Miri"
    if ! unstable miri --version > /dev/null 2>&1; then
        echo "skipped: rustup +nightly component add miri"
        return
    fi
    export CARGO_TARGET_DIR=$root/memory-miri MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows" QLNET_SIMD=portable
    kernels_crate
    # Nothing that protects pages of memory, and no large products.
    unstable miri test "${kernels[@]}" -- --skip edges --skip packed --skip head --skip rounded --skip every_image \
        --skip threads_do_not --skip adds_the_product --skip two_products
    # The unpickler, in all of the crate: nothing that maps memory or calls C.
    unstable miri test --locked --lib -- weights::checkpoint::pickle
)

[ $# -gt 0 ] || set -- all
for what in "$@"; do
    case $what in
        asan | tsan | assertions) "$what" ;;
        valgrind | miri) "check_with_$what" ;;
        all) asan; tsan; assertions; check_with_valgrind; check_with_miri ;;
        *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 1 ;;
    esac
done
say "Nothing was found"
