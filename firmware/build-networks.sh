#!/bin/sh
# Builds the programs that the tests on emulated boards run with each network of lenet-core/networks except the default one, and
# `panic_free`, which does not link if a panic can be reached. The programs are in target/firmware/BOARD+NETWORK. The micro:bit
# v1 has enough RAM (16 KB) for `relu` and `tiny`, so these are also built for it, and `color` is built in int8 for both boards.
set -eu
cd "$(dirname "$0")"
# build BOARD NETWORK [SUFFIX]: builds the programs. The suffix is added to the name of the folder.
build() {
    echo "$1, $2${3:-}"
    LENET_NETWORK=$2 cargo build --release ${CARGO_ARGS:-} --no-default-features --features "$1" \
        --bin bench --bin evaluate --bin infer --bin panic_free \
        --config "boards/$1/config.toml" --target-dir "../target/firmware/$1+$2${3:-}"
}
for network in ../lenet-core/networks/*.rs; do
    network=$(basename "$network" .rs)
    case $network in
    lenet) ;;
    relu | tiny)
        build mps2-an386 "$network"
        build microbit "$network"
        ;;
    *) build mps2-an386 "$network" ;;
    esac
done
# The file only says which numbers the programs read.
export LENET_WEIGHTS="$PWD/../data/lenet-int8.weights"
build mps2-an386 color -int8
build microbit color -int8
