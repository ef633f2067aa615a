#!/usr/bin/env bash
# Builds the program and all tests for machines that are not this one, and runs the tests here.
#
#     scripts/check_targets.sh aarch64    64-bit ARM, by qemu's emulation of one process
#     scripts/check_targets.sh i686       32-bit x86, which x86-64 runs itself
#     scripts/check_targets.sh windows    64-bit Windows, by wine
#     scripts/check_targets.sh all        one after the other
#     scripts/check_targets.sh aarch64 --test network      what follows goes to `cargo test`
#
# On Debian or Ubuntu, on x86-64. Rust's standard library for the other machine comes from rustup (`rustup target add`),
# or else from Debian (libstd-rust-dev:arm64, libstd-rust-dev:i386; for Windows rust-src, of which it is compiled). What
# else is missing is named before anything is built. BUILD_ONLY=1 runs nothing. docs/reliability.md says what came out.
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$0")/.."

usage() { sed -n '/^# /s/^# //p' "$self" | sed -n 1,6p >&2; exit 2; }
missing() { echo "$1 is missing: $2" >&2; exit 1; }
need() { command -v "$1" > /dev/null || missing "$1" "apt-get install $2"; }

# Whether the compiler that is used has a standard library for a target.
std_is_there() { compgen -G "$(rustc --print target-libdir --target "$1")/libstd-*" > /dev/null; }

check() {
    local name=$1 target test std=() skip=()
    shift
    case $name in
        aarch64)
            target=aarch64-unknown-linux-gnu
            need aarch64-linux-gnu-g++ 'crossbuild-essential-arm64 (and libc6:arm64 after dpkg --add-architecture arm64)'
            export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
            std_is_there "$target" || missing "Rust for $target" "rustup target add $target, or apt-get install libstd-rust-dev:arm64"
            # All that the emulation has. Half precision has instructions in some processors only.
            export QEMU_CPU=${QEMU_CPU:-max}
            [ -e /lib/ld-linux-aarch64.so.1 ] || export QEMU_LD_PREFIX=${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}
            # What takes half a minute and more here did not finish in a quarter of an hour. And strace would see the emulation.
            local slow=(a_full_size_network_keeps_its_logits the_audit_agrees the_list_of_families_is_complete
                a_ball_that_no_pixel_is_inside features_are_the_pooled_values quantis
                fused_blocks_equal_plain_ones_at_full_width the_command_shows_every_step_and_saves)
            local traced=(no_command_opens_a_connection help_is_read no_home_is a_download_asks_the_hub)
            # qemu writes a file of its own, and a limit on the size of files ends it.
            local limited=(no_byte_can_be_written_and_nothing_is_lost a_full_disk_leaves_what_was_there)
            for test in "${slow[@]}" "${traced[@]}" "${limited[@]}"; do skip+=(--skip "$test"); done
            ;;
        i686)
            target=i686-unknown-linux-gnu
            need i686-linux-gnu-g++ 'crossbuild-essential-i386 (and libc6:i386 after dpkg --add-architecture i386)'
            export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER=i686-linux-gnu-gcc
            std_is_there "$target" || missing "Rust for $target" "rustup target add $target, or apt-get install libstd-rust-dev:i386"
            ;;
        windows)
            target=x86_64-pc-windows-gnu
            need wine 'wine wine64'
            local gcc=x86_64-w64-mingw32-gcc-posix
            need $gcc 'gcc-mingw-w64-x86-64-posix g++-mingw-w64-x86-64-posix'
            export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$gcc CC_x86_64_pc_windows_gnu=$gcc
            export CXX_x86_64_pc_windows_gnu=x86_64-w64-mingw32-g++-posix
            export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=wine WINEDEBUG=-all
            if ! std_is_there "$target"; then
                [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.toml" ] ||
                    missing "Rust for $target" "rustup target add $target, or apt-get install rust-src"
                # Debian has no libraries of Rust for Windows, but what they are made of.
                export RUSTC_BOOTSTRAP=1
                std=("-Zbuild-std=std,panic_unwind")
            fi
            ;;
        *) usage ;;
    esac
    need kill procps
    echo "== $target"
    cargo test --release --locked --target "$target" "${std[@]}" --no-run "$@"
    # Tests start the program, so the kernel has to know what runs it.
    if [ "$name" != windows ]; then
        local program=${CARGO_TARGET_DIR:-target}/$target/release/qlnet
        "$program" --version > /dev/null || missing "what runs $target" 'apt-get install qemu-user-binfmt, or qemu-user-static'
    fi
    [ -z "${BUILD_ONLY:-}" ] || return 0
    cargo test --release --locked --target "$target" "${std[@]}" --no-fail-fast "$@" -- "${skip[@]}"
}

[ $# -gt 0 ] || usage
name=$1
shift
if [ "$name" = all ]; then
    failed=()
    for name in aarch64 i686 windows; do "$self" "$name" "$@" || failed+=("$name"); done
    [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
else
    check "$name" "$@"
fi
