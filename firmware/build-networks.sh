#!/bin/sh
# Builds `evaluate` with each network of lenet-core/networks except the default one, for the tests on emulated boards. The
# programs are in target/firmware/BOARD+NETWORK. The micro:bit v1 has enough RAM (16 KB) for `relu` and `tiny`, so these are also
# built for it.
set -eu
cd "$(dirname "$0")"
build() {
    echo "$1, $2"
    LENET_NETWORK=$2 cargo build --release ${CARGO_ARGS:-} --no-default-features --features "$1" --bin evaluate \
        --config "boards/$1/config.toml" --target-dir "../target/firmware/$1+$2"
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
