#!/usr/bin/env bash
# Lints the program with the feature `metal` on a machine that is not Apple's: types, borrows and arguments of all that
# is written for Metal. Nothing is linked or run, and the shading language is not compiled.
#
#     scripts/check_metal.sh              the library and the program
#     scripts/check_metal.sh --tests      and what else clippy takes: --all-targets, --examples
#
# The crates that bind Objective-C compile elsewhere if they are told of GNUstep's runtime, with two changes: objc2-metal
# asks for Apple's framework everywhere, and objc2 for crates that are not in Cargo.lock, which only linking needs. So a
# copy of this crate, of links to its files, depends on changed copies of these two. The versions are those of Cargo.lock, and
# what is compiled for dependencies is kept in the folder of all builds.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
metadata=$(cargo metadata --locked --format-version 1 --features metal)
# The folder of a package, from the path of its manifest.
folder() {
    grep -o "\"manifest_path\":\"[^\"]*/$1-[0-9][^/\"]*/Cargo.toml\"" <<< "$metadata" | head -1 | cut -d'"' -f4 | xargs dirname
}
target=$(grep -o '"target_directory":"[^"]*"' <<< "$metadata" | cut -d'"' -f4)
copy=$target/check-metal
rm -rf "$copy"
mkdir -p "$copy/crate" "$copy/gnustep/src"

for file in "$root"/* "$root"/.cargo; do
    case ${file##*/} in Cargo.* | target | .cargo) ;; *) ln -s "$file" "$copy/crate/" ;; esac
done
cp Cargo.lock "$copy/crate/"
{
    cat Cargo.toml
    printf '\n[workspace]\n\n[dependencies.gnustep]\npath = "../gnustep"\n'
    printf '\n[patch.crates-io]\nobjc2 = { path = "../objc2" }\nobjc2-metal = { path = "../objc2-metal" }\n'
} > "$copy/crate/Cargo.toml"
touch -r Cargo.toml "$copy/crate/Cargo.toml"

# Features of dependencies add up, so nobody has to use this crate.
cat > "$copy/gnustep/Cargo.toml" << 'END'
[package]
name = "gnustep"
version = "0.0.0"
edition = "2024"

[dependencies]
block2 = { version = "*", features = ["gnustep-2-1"] }
objc2 = { version = "*", features = ["gnustep-2-1"] }
END
: > "$copy/gnustep/src/lib.rs"
touch -r Cargo.lock "$copy/gnustep/src/lib.rs"

# A file of a package without what a basic regular expression finds in lines, or with something else instead.
change() {
    local original
    original=$(folder "$1")
    [ -d "$copy/$1" ] || { cp -Rp "$original" "$copy/$1" && chmod -R u+w "$copy/$1"; }
    grep -q "$3" "$copy/$1/$2" || { echo "$1: $2 has no $3, which had to be changed" >&2; exit 1; }
    sed "s/$3/${4:-}/" "$copy/$1/$2" > "$copy/changed"
    mv "$copy/changed" "$copy/$1/$2"
    # As old as it was, so that cargo compiles it once.
    touch -r "$original/$2" "$copy/$1/$2"
}
change objc2 Cargo.toml '^ *"objc2-exception-helper?.*",*$'
change objc2 Cargo.toml '^ *"unstable-static-class",$'
change objc2-metal src/generated/mod.rs '^#\[\(link(.*)\)\]' '#[cfg_attr(target_vendor = "apple", \1)]'

# Everything is there since `cargo metadata`: without a network cargo takes the versions of the lock file, or fails.
cd "$copy/crate"
CARGO_TARGET_DIR=$target cargo clippy --release --offline --features metal "$@" -- -D warnings
# The copy's lock file has two more packages; all others must be as they were.
versions() {
    paste -d' ' - - < <(grep -A1 '^name = ' "$1" | grep -v '^--') | grep -v '"gnustep"' | sort
}
diff <(versions "$root/Cargo.lock") <(versions Cargo.lock) || { echo "other versions were checked" >&2; exit 1; }
