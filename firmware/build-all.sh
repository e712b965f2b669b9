#!/bin/sh
# Builds every program for every board, or for the boards named. Arguments for cargo go into CARGO_ARGS, such as
# `-Zbuild-std=core` where rustup has no bare-metal targets. The programs are for the kind of numbers that the weights file
# LENET_WEIGHTS has, else that of the file in the board's settings, else f32; those for int8 have folders of their own.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- $(ls -d boards/*/ | xargs -n 1 basename)
for board; do
    weights=${LENET_WEIGHTS:-$(sed -n 's|^LENET_WEIGHTS = { value = "\(.*\)", .*|boards/\1|p' "boards/$board/config.toml")}
    # The sixth byte of a weights file is the kind: 1 is int8.
    kind=
    [ -z "$weights" ] || [ "$(od -An -tu1 -j5 -N1 "$weights" | tr -d ' ')" != 1 ] || kind=-int8
    echo "$board$kind"
    # The folder where `trainer device` and the tests look, also where CARGO_TARGET_DIR names another.
    cargo build --release ${CARGO_ARGS:-} --no-default-features --features "$board" \
        --config "boards/$board/config.toml" --target-dir "../target/firmware/$board$kind"
done
