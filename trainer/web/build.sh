#!/usr/bin/env bash
# Builds the WebAssembly modules of the report into FOLDER, by default the folder `wasm`: build.sh [FOLDER]
# Each network has two modules, one for its f32 form and one for its int8 form.
#
#     rustup target add wasm32-unknown-unknown
#     trainer/web/build.sh
#     LENET_NETWORK=my-network.rs trainer/web/build.sh      # builds the modules of your own network
#
# The modules of the shipped networks are committed, so that the trainer builds without the WebAssembly target. The same compiler
# gives the same bytes on every machine, because paths are replaced. Each module names its compiler in the section `producers`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=$(mkdir -p "${1:-$here/wasm}" && cd "${1:-$here/wasm}" && pwd)
from=$PWD
cd "$here/../.."
root=$PWD
flags="-Clink-arg=--keep-section=producers --remap-path-prefix=$root= --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src="

# module PACKAGE FILE [OPTION...]: builds a package and stores the module as FILE.wasm.
module() {
    local folder="$root/target/web"
    CARGO_TARGET_DIR="$folder" CARGO_ENCODED_RUSTFLAGS="${flags// /$'\x1f'}" CARGO_INCREMENTAL=0 \
        cargo build -q --locked --profile web --target wasm32-unknown-unknown -p "$1" "${@:3}"
    cp "$folder/wasm32-unknown-unknown/web/${1//-/_}.wasm" "$to/$2.wasm"
    chmod 644 "$to/$2.wasm"
}

own=${LENET_NETWORK:-}
if [ -n "$own" ] && [ ! -f "lenet-core/networks/$own.rs" ]; then
    # A relative path starts at the directory where this script was called, as for the trainer.
    [ ! -f "$from/$own" ] || own=$(realpath "$from/$own")
    LENET_NETWORK=$own module lenet-web own
    LENET_NETWORK=$own module lenet-web own-int8 --features int8
else
    for network in lenet-core/networks/*.rs; do
        name=$(basename "$network" .rs)
        LENET_NETWORK=$name module lenet-web "$name"
        LENET_NETWORK=$name module lenet-web "$name-int8" --features int8
    done
    module lenet-pictures-web pictures
fi
ls -l "$to"
