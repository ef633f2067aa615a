#!/bin/bash
# Runs fuzz targets one after the other, and prints what came of each as a row of a table in Markdown.
#
#     fuzz/run.sh [SECONDS] [TARGET...]     1200 seconds of computing each, all targets
#
# Needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz. With clang the C code
# of libjpeg-turbo and zstd is checked too (Debian: apt install clang llvm). MORE=DIR adds a folder of files
# to begin with: other projects' test files. BUILT=DIR has targets that are built already; LOGS=DIR keeps what libFuzzer
# says.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-1200}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    # The most dangerous first.
    targets=(checkpoint jpeg pickle png bmp gif webp tiff dds ico tga qoi pnm hdr exr farbfeld exif tar webdataset parquet
        folded packed predictions labels safetensors)
fi
for tool in rustup cargo-fuzz; do
    command -v $tool >/dev/null || { echo "run.sh: $tool is missing: see the top of this file" >&2; exit 1; }
done
rustup run nightly rustc --version >/dev/null || { echo "run.sh: rustup toolchain install nightly" >&2; exit 1; }
if [ -z "${CC:-}" ] && clang=$(command -v clang); then
    export CC=$clang CFLAGS="-fsanitize=address,fuzzer-no-link -g1"
fi
[ -n "${CC:-}" ] || echo "run.sh: no clang: C code is not checked" >&2
host=$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
built=${BUILT:-${CARGO_TARGET_DIR:-target}/$host/release}
# The same versions of dependencies as the program.
[ Cargo.lock -nt ../Cargo.lock ] || cp ../Cargo.lock Cargo.lock

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
export TMPDIR=$temporary ASAN_OPTIONS=${ASAN_OPTIONS:-detect_odr_violation=0}
number() { sed -nE "s/.*$1[^0-9]*([0-9]+).*/\1/p" "$2" | tail -1; }

echo "| target | executions | a second | edges | corpus | peak memory, MB | CPU time, s | panics caught, at least | findings |"
echo "|---|---|---|---|---|---|---|---|---|"
for target in "${targets[@]}"; do
    if [ -z "${BUILT:-}" ]; then
        cargo +nightly fuzz build --fuzz-dir . "$target" >"$temporary/build" 2>&1 || { cat "$temporary/build" >&2; exit 1; }
    fi
    longest=16384
    case $target in
    checkpoint | tar | webdataset | parquet | folded | packed) longest=65536 ;;
    exif | labels | hdr | farbfeld | qoi | tga) longest=4096 ;;
    esac
    mkdir -p "corpus/$target" "artifacts/$target"
    begin=("corpus/$target")
    for folder in "seeds/$target" "../tests/fixtures/found/$target" ${MORE:+"$MORE"}; do
        [ -d "$folder" ] && begin+=("$folder")
    done
    case $target in
    tar | webdataset | parquet) begin+=(../tests/fixtures/sets) ;;
    checkpoint | pickle | safetensors | folded | packed | labels | predictions | exif) ;;
    *) begin+=(../tests/fixtures/decode) ;;
    esac
    # The thread that reads a table may be about to end, with what is freed at its end.
    leaks=1
    if [ "$target" = parquet ]; then leaks=0; fi
    log=$temporary/$target.log
    : >"$log"
    executions=0 findings=0 computed=0
    TIMEFORMAT='%U %S'
    # libFuzzer counts the time that passes. Where others compute too, that is more, and it goes on.
    while [ $computed -lt $((seconds * 19 / 20)) ] && [ $findings -lt 10 ]; do
        part=$temporary/part.log
        { time nice -n 19 "$built/$target" "${begin[@]}" -dict="dictionaries/$target.dict" -max_len=$longest \
            -max_total_time=$((seconds - computed)) -artifact_prefix="artifacts/$target/" -timeout=60 -rss_limit_mb=2560 \
            -malloc_limit_mb=1024 -print_final_stats=1 -reload=0 \
            -detect_leaks=$leaks >"$part" 2>&1 || findings=$((findings + 1)); } \
            2>"$temporary/time"
        computed=$((computed + $(awk 'END { printf "%d", $1 + $2 + 0.5 }' "$temporary/time")))
        executed=$(number stat::number_of_executed_units "$part")
        executions=$((executions + ${executed:-0}))
        cat "$part" >>"$log"
        rm -rf "$temporary"/qlnet-fuzz-*
    done
    panics=$(sed -nE 's/^PANIC ([0-9]+) times.*/\1/p' "$log" | sort -n | tail -1)
    echo "| $target | $executions | $((executions / (computed + 1))) | $(number 'cov:' "$log") | $(number 'corp:' "$log") |" \
        "$(number stat::peak_rss_mb "$log") | $computed | ${panics:-none} | $findings |"
    if [ -n "${LOGS:-}" ]; then
        mkdir -p "$LOGS"
        cp "$log" "$LOGS/"
    fi
done
