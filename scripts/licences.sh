#!/usr/bin/env bash
# Writes the licences of all crates that are linked into the program for a target to standard output: the names and
# versions first, then every text once, with the crates that it is the licence of.
#
#     scripts/licences.sh x86_64-unknown-linux-gnu > THIRD-PARTY-LICENCES.txt
#
# Needs cargo and the sources of the crates, which a build has fetched. Fails if a crate has neither a text nor an SPDX
# expression.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?usage: scripts/licences.sh TARGET}

hash() { if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi; }
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
texts=$(mktemp -d)
trap 'rm -rf "$texts"' EXIT

cargo tree --locked --target "$target" ${FEATURES:+--features "$FEATURES"} --edges normal,no-proc-macro --prefix none --format '{p}|{l}' |
    sed 's/ (proc-macro)//; s/ (\*)//' | grep -v "^qlnet " | sort -u > "$texts/crates"

echo "qlnet is Apache-2.0 (see LICENSE). These crates are linked into it."
echo
while IFS='|' read -r package spdx; do
    read -r name version <<< "${package/ v/ }"
    if [ -z "$spdx" ]; then
        echo "$name $version says nothing of its licence" >&2
        exit 1
    fi
    printf '%s %s: %s\n' "$name" "$version" "$spdx"
    # Licences of parts, such as of the C code of libjpeg-turbo and of what ring took from fiat-crypto, are folders down.
    find "$registry"/*/"$name-$version" -type f \
        \( -iname 'LICEN[CS]E*' -o -iname 'COPYING*' -o -iname 'NOTICE*' -o -iname 'COPYRIGHT*' -o -iname 'README.ijg' \) \
        ! -name '*.rs' -print0 | sort -z | while IFS= read -r -d '' file; do
        hash=$(tr -d '\r' < "$file" | tr -s '[:space:]' ' ' | hash | cut -c 1-64)
        [ -e "$texts/$hash.text" ] || tr -d '\r' < "$file" > "$texts/$hash.text"
        echo "$name $version" >> "$texts/$hash.names"
    done
    grep -qx "$name $version" "$texts"/*.names || echo "$name $version ($spdx)" >> "$texts/without"
done < "$texts/crates"

cat << 'END'

Rust's standard library: MIT OR Apache-2.0, copyright the Rust project's contributors.

The built-in model is this project's, Apache-2.0, trained on the UCI handwritten digits (CC BY 4.0): E. Alpaydin and
C. Kaynak, Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49; the samples are from there too.
Published weights are not in the program; those of https://huggingface.co/liuyao/QLNet are Apache-2.0. The names of ImageNet's
classes are WordNet's: copyright 2006 by Princeton University, all rights reserved, free to use, copy and pass on
(https://wordnet.princeton.edu/license-and-commercial-use).

Pictures are lettered in DejaVu Sans, a part of which is in the program. Its licence is in the font file:
https://dejavu-fonts.github.io/License.html (Bitstream Vera and Arev, free to embed and pass on).
This software is based in part on the work of the Independent JPEG Group.
END
if [ -s "$texts/without" ]; then
    printf '\nThe packages of these hold no text; it is that of their SPDX expression, at their place on crates.io:\n'
    paste -sd, "$texts/without" | sed 's/,/, /g' | fold -s -w 100
fi
for text in "$texts"/*.text; do
    printf '\n%s\n' "$(printf '=%.0s' {1..100})"
    sort -u "${text%.text}.names" | paste -sd, - | sed 's/,/, /g' | fold -s -w 100
    echo
    cat "$text"
done
