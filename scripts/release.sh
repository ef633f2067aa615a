#!/usr/bin/env bash
# Makes the archive of a release for one platform: the program, its man pages, its completions for shells, and licences.
#
#     scripts/release.sh                              for this machine
#     scripts/release.sh aarch64-unknown-linux-gnu    for another target that Rust and a linker are installed for
#
# Writes dist/qlnet-VERSION-TARGET.tar.gz (.zip for Windows) and its SHA-256. FEATURES=metal builds with candle's
# features, and scripts/build-cuda.sh --archive does so for CUDA. RUNNER starts a program of the target on this machine,
# such as `qemu-aarch64-static` or `wine`.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc --version --verbose | sed -n 's/^host: //p')
target=${1:-$host}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
name=qlnet-$version-$target
case ${FEATURES:-} in *cuda*) name+=-cuda ;; esac
suffix=
case $target in *windows*) suffix=.exe ;; esac

# The same commit makes the same archive: the program, its manual pages and the archive's entries tell of the commit.
time=$(git log -1 --format=%ct 2> /dev/null || date +%s)
QLNET_COMMIT=$(git rev-parse --short HEAD 2> /dev/null || true)
export SOURCE_DATE_EPOCH=$time QLNET_COMMIT

# For this machine, without --target: so that what a build has left is used.
build=(--release --locked --bin qlnet)
out=${CARGO_TARGET_DIR:-target}/release
if [ "$target" != "$host" ]; then
    build+=(--target "$target")
    out=${CARGO_TARGET_DIR:-target}/$target/release
fi
[ -z "${FEATURES:-}" ] || build+=(--features "$FEATURES")
cargo build "${build[@]}"

# A program that does not start, or does not classify, is no release.
read -ra run <<< "${RUNNER:-}"
run+=("$out/qlnet$suffix")
label=$("${run[@]}" classify samples/digits/3-45.png --model qlnet-digits -k 1 --csv | tail -1)
case $label in *,3,*) ;; *) echo "it takes a 3 for something else: $label" >&2; exit 1 ;; esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dir=$work/$name
mkdir -p "$dir/completions" dist
cp "$out/qlnet$suffix" README.md CHANGELOG.md LICENSE "$dir"
"${run[@]}" man "$dir/man"
for shell in bash zsh fish powershell elvish; do
    case $shell in
        bash) file=qlnet.bash ;;
        zsh) file=_qlnet ;;
        fish) file=qlnet.fish ;;
        powershell) file=_qlnet.ps1 ;;
        elvish) file=qlnet.elv ;;
    esac
    "${run[@]}" completions "$shell" > "$dir/completions/$file"
done
scripts/licences.sh "$target" > "$dir/THIRD-PARTY-LICENCES.txt"

case $target in
    *windows*)
        archive=$name.zip
        find "$dir" -exec touch -d "@$time" {} +
        rm -f "dist/$archive"
        if command -v zip > /dev/null; then
            (cd "$work" && find "$name" | LC_ALL=C sort | zip -q -X -@ archive.zip)
        else
            (cd "$work" && 7z a -bso0 archive.zip "$name")
        fi
        mv "$work/archive.zip" "dist/$archive"
        ;;
    *)
        archive=$name.tar.gz
        if tar --version | grep -q GNU; then
            tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" -cf - "$name"
        else
            tar -C "$work" -cf - "$name"
        fi | gzip -9n > "dist/$archive"
        ;;
esac
(cd dist && if command -v sha256sum > /dev/null; then sha256sum "$archive"; else shasum -a 256 "$archive"; fi > "$archive.sha256")
ls -l "dist/$archive"
