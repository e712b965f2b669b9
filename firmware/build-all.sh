#!/bin/sh
# Builds every program for every board, or for the boards named. Arguments for cargo go into CARGO_ARGS, such as
# `-Zbuild-std=core` where rustup has no bare-metal targets.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- $(ls -d boards/*/ | xargs -n 1 basename)
for board; do
    echo "$board"
    # The folder where `trainer device` and the tests look, also where CARGO_TARGET_DIR names another.
    cargo build --release ${CARGO_ARGS:-} --no-default-features --features "$board" \
        --config "boards/$board/config.toml" --target-dir "../target/firmware/$board"
done
