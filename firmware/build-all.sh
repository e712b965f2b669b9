#!/bin/sh
# Builds every program for every board, or for the boards given as arguments. CARGO_ARGS holds further arguments for cargo, such
# as `-Zbuild-std=core` if rustup has no bare-metal targets. The programs use the number format of the weights file LENET_WEIGHTS
# or, if that is not set, of the file in the board's config.toml, or else f32. Programs for int8 have their own folders.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- $(ls -d boards/*/ | xargs -n 1 basename)
for board; do
    weights=${LENET_WEIGHTS:-$(sed -n 's|^LENET_WEIGHTS = { value = "\(.*\)", .*|boards/\1|p' "boards/$board/config.toml")}
    # The sixth byte of a weights file is the number format: 1 is int8.
    kind=
    [ -z "$weights" ] || [ "$(od -An -tu1 -j5 -N1 "$weights" | tr -d ' ')" != 1 ] || kind=-int8
    echo "$board$kind"
    # `trainer device` and the tests look in this folder, even if CARGO_TARGET_DIR names another.
    cargo build --release ${CARGO_ARGS:-} --no-default-features --features "$board" \
        --config "boards/$board/config.toml" --target-dir "../target/firmware/$board$kind"
done
