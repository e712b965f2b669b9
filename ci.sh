#!/usr/bin/env bash
# Runs every check of the project. CI runs this file and nothing else.
#
# On Debian, as root, it installs what the checks need. Elsewhere it prints what to install, and fails. Checks that need rustup,
# mdbook, PyTorch or a GPU do not run where these are missing, and the output says so.
#
# Two halves, `host` and `devices`, run side by side, because most steps do not keep two cores busy. The output of `devices` is
# printed after that of `host`. On a machine with a GPU both halves may use it at once, so the times that they print there are upper
# limits.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
# The settings of the shell must not change what the checks do.
unset "${!LENET_@}" DEFMT_LOG
# Fails now instead of at the end if the files that a later step writes exist.
docs/journeys.sh --ready
# The tests compile in less time without debug information.
export CARGO_PROFILE_DEV_DEBUG=0
# The program that `cargo test` builds. The release build of the trainer is not tested. It optimizes the trainer's crates in the same
# way and more of the libraries, but has no debug assertions and no overflow checks.
trainer=${CARGO_TARGET_DIR:-$PWD/target}/debug/trainer
trainer() { "$trainer" "$@"; }

# Both halves add lines to these files: the seconds of each step, and the checks that could not run on this machine.
record=$(mktemp -d)
touch "$record/seconds" "$record/not_run"
not_run() { echo "$*" >>"$record/not_run"; }
# step NAME: ends the previous step of this half, if there is one, and begins the next. Without a name it only ends it.
step() {
    [ -z "${name:-}" ] || printf '%6d  %s\n' $((SECONDS - began)) "$name" >>"$record/seconds"
    name=$*
    began=$SECONDS
    [ -z "$name" ] || printf '\n== %s (%d s)\n' "$name" "$SECONDS"
}

# need COMMAND PACKAGE...: installs the Debian packages if the command is missing.
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        [ -n "${apt_updated:-}" ] || apt-get update -q >/dev/null
        apt_updated=1
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${@:2}" >/dev/null
    else
        echo "ci.sh needs $1 (Debian: apt install ${*:2})" >&2
        exit 1
    fi
}

step "tools"
need cargo cargo
need c++ g++
need qemu-system-arm qemu-system-arm
need qemu-system-riscv32 qemu-system-misc
need qemu-aarch64 qemu-user
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
need nm binutils
need python3 python3
python3 -c 'import ensurepip' 2>/dev/null || need python3-venv python3-venv
need chromium chromium
need node nodejs
need npm npm
cargo --version
qemu-system-arm --version | head -n 1

# Folders outside the tree: Python wheels with compilers for the CUDA source, which need no GPU, and ONNX runtimes; and an npm package.
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/lenet-ci
[ -x "$wheels/bin/pip" ] || python3 -m venv "$wheels"
"$wheels/bin/pip" install -q nvidia-cuda-nvrtc-cu12==12.0.140 nvidia-cuda-nvcc-cu12==12.9.86 \
    numpy onnx onnxruntime safetensors tract
export RP2040JS=${XDG_CACHE_HOME:-$HOME/.cache}/lenet-ci-npm
npm install --silent --no-audit --no-fund --prefix "$RP2040JS" rp2040js@1.4.1

# `cross cargo ...` builds for other targets. It uses rustup's targets if rustup's server answers. Otherwise it uses Debian's compiler
# and builds the standard library from source: `core`, or the crates that `library` names.
cortex_m="thumbv6m-none-eabi thumbv7em-none-eabihf thumbv7m-none-eabi thumbv8m.main-none-eabihf"
riscv=riscv32imac-unknown-none-elf
arm64=aarch64-unknown-linux-gnu
if command -v rustup >/dev/null && timeout 120 rustup target add $cortex_m $riscv $arm64 >/dev/null 2>&1; then
    echo "other targets: by rustup"
    cross() { "$@"; }
else
    echo "other targets: Debian's rustc-web, the library built from source"
    dpkg -s cargo-web rust-web-src >/dev/null 2>&1 || need cargo-web cargo-web rust-web-src
    # The default in Debian, lld 14, places sections so that they overlap.
    need ld.lld-19 lld-19
    cross() {
        env PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD="${library:-core}" \
            CARGO_TARGET_THUMBV6M_NONE_EABI_LINKER=ld.lld-19 CARGO_TARGET_THUMBV7M_NONE_EABI_LINKER=ld.lld-19 \
            CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=ld.lld-19 CARGO_TARGET_THUMBV8M_MAIN_NONE_EABIHF_LINKER=ld.lld-19 \
            CARGO_TARGET_RISCV32IMAC_UNKNOWN_NONE_ELF_LINKER=ld.lld-19 "$@"
    }
fi

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# The lints and the documentation of the host's crates use the oldest Rust that Cargo.toml claims, so this pass also shows that it
# compiles them. It has no lints that were added later. The fuzz targets and the firmware are linted with the current Rust. The oldest
# Rust compiles the firmware of one board only, but no package in Cargo.lock may require a newer Rust, which is checked below.
if command -v rustup >/dev/null &&
    timeout 300 rustup toolchain install "$oldest" --profile minimal --component clippy >/dev/null 2>&1 &&
    timeout 120 rustup target add --toolchain "$oldest" $cortex_m >/dev/null 2>&1; then
    echo "lints and documentation: Rust $oldest"
    oldest() { cargo "+$oldest" "$@"; }
    oldest_cross() { cargo "+$oldest" "$@"; }
else
    echo "rustup cannot install Rust $oldest here: it was not tried"
    not_run "the oldest Rust, $oldest, because rustup cannot install it here"
    oldest() { cargo "$@"; }
    # The builds of the boards have shown what this compiler can do.
    oldest_cross() { :; }
fi

host() {
step "format, and lints of the host's crates"
cargo fmt --all --check
rustfmt --check --edition 2024 firmware/boards/*/board.rs
oldest clippy -q --locked --target-dir target/oldest --workspace --exclude 'firmware*' --exclude fuzz --all-targets --all-features \
    -- -D warnings
oldest clippy -q --locked --target-dir target/oldest -p trainer --no-default-features --features program -- -D warnings

cargo metadata --format-version 1 --locked | python3 -c '
import json, sys
number = lambda version: tuple(map(int, version.split(".")[:2]))
newer = [package["id"] for package in json.load(sys.stdin)["packages"]
         if package["rust_version"] and number(package["rust_version"]) > number(sys.argv[1])]
sys.exit("packages that need a newer Rust: " + ", ".join(newer) if newer else 0)' "$oldest"

step "documentation"
python3 docs/pictures.py --check
# This script does not install mdbook, which takes more than four minutes of processor time. The test `docs` checks the same pages.
if command -v mdbook >/dev/null; then
    book=$(mktemp -d)
    mdbook build docs -d "$book"
    rm -r "$book"
else
    echo "no mdbook here: the book has not been built as HTML"
    not_run "mdbook build, because mdbook is not installed here"
fi
RUSTDOCFLAGS="-D warnings" oldest doc -q --locked --target-dir target/oldest --no-deps \
    --workspace --exclude 'firmware*' --exclude fuzz --all-features

# Tests of the host are selected by `--test` alone. With `-p` the dependencies would get other features and be built again.
step "tests"
cargo test -q
# A contributor may have built for another network.
LENET_NETWORK=tiny cargo test -q -p lenet-core --features link --lib --target-dir target/other-network
example=$(mktemp -d)
cargo run -q --example in_memory -- "$example/stripes.weights" | tee "$example/log"
grep -q '^epoch 10: test accuracy 0\.9\|^epoch 10: test accuracy 1\.' "$example/log"
rm -r "$example"

step "a full disk: a small file system is mounted, by root or by a namespace's root"
as_root=()
[ "$(id -u)" = 0 ] || as_root=(unshare --map-root-user --mount)
"${as_root[@]}" cargo test -q --test resume -- --ignored

step "the activations on every float"
cargo test -q --test activation -- --ignored

step "fuzzing: the weights file, the IDX reader and the link, 20 s side by side"
# Builds the fuzz targets as cargo-fuzz does, but without installing it: fuzz/.cargo/config.toml has the flags.
(cd fuzz && cargo build -q --release && cargo clippy -q --release -- -D warnings)
fuzz() {
    local out
    out=$(mktemp -d)
    mkdir "$out/corpus"
    fuzz/target/*/release/"$1" -max_total_time=20 -print_final_stats=1 "$out/corpus" "fuzz/seeds/$1" >"$out/log" 2>&1 ||
        { cat "$out/log"; return 1; }
    grep -E '^(stat::number|DONE|Done)|DONE' "$out/log" | sed "s/^/$1: /"
    rm -r "$out"
}
running=()
for target in weights idx link; do
    fuzz "$target" &
    running+=($!)
done
for process in "${running[@]}"; do wait "$process"; done

step "one real epoch: PyTorch gives test accuracy 0.584 +- 0.011 over 12 seeds"
run=$(mktemp -d)
trainer --epochs 1 --out "$run/run" | tee "$run/log"
accuracy=$(sed -n 's/^test acc \([0-9.]*\) .*/\1/p' "$run/log")
awk -v a="$accuracy" 'BEGIN { exit !(a > 0.54 && a < 0.63) }'
trainer evaluate "$run/run/lenet.weights" | tee "$run/evaluated"
grep -q "^test acc $accuracy " "$run/evaluated"
trainer evaluate data/lenet.weights --confusion | tee "$run/evaluated"
grep -q '^test acc 0.9033 (9033 of 10000)$' "$run/evaluated"
trainer summary data/lenet.weights
trainer predict data/lenet.weights --index 7 | tee "$run/predicted"
grep -q '% shirt$' "$run/predicted"
trainer bench --epochs 2

step "8-bit integers: the committed file is what quantize makes, and loses 3 images of 10,000"
int8=$(mktemp -d)
trainer quantize data/lenet.weights --out "$int8/lenet.weights" | tee "$int8/log"
cmp "$int8/lenet.weights" data/lenet-int8.weights
grep -q '^test acc 0.9030 (9030 of 10000) in int8$' "$int8/log"
trainer compare data/lenet.weights data/lenet-int8.weights --tolerance 1
rm -r "$int8"

step "the report of that epoch in a browser, as wide as a phone and as a screen, with the network running in it"
python3 tests/report_page.py "$run/run/report.html"
rm -r "$run"

step "the page in which the network runs: against the trainer in Chromium, on all test images in Node"
live=$(mktemp -d)
for kind in lenet lenet-int8; do
    python3 tests/live_page.py "$trainer" "data/$kind.weights"
    trainer page "data/$kind.weights" --out "$live/$kind.html"
    trainer evaluate "data/$kind.weights" --logits "$live/$kind.safetensors"
done
# in_node FOLDER: compares the modules in FOLDER with the trainer.
in_node() {
    for kind in lenet lenet-int8; do
        node tests/live_node.mjs "$live/$kind.html" "$1/$kind.wasm" "data/$kind.weights" "$live/$kind.safetensors" \
            data/fashion-mnist/t10k-images-idx3-ubyte.gz
    done
}
in_node trainer/web/wasm

step "the WebAssembly modules against their source"
if command -v rustup >/dev/null && timeout 120 rustup target add wasm32-unknown-unknown >/dev/null 2>&1; then
    lint() { cargo clippy -q --profile web --target wasm32-unknown-unknown --target-dir target/web "$@" -- -D warnings; }
    lint -p lenet-web
    lint -p lenet-web --features int8
    lint -p lenet-pictures-web
    trainer/web/build.sh "$live/built" >/dev/null
    # Each module names its compiler. Another compiler gives other bytes, so then only the behaviour is compared.
    if grep -aqF "$(rustc --version | cut -d ' ' -f 2-)" trainer/web/wasm/lenet.wasm; then
        for module in "$live"/built/*.wasm; do
            if ! cmp "$module" "trainer/web/wasm/$(basename "$module")"; then
                echo "$(basename "$module") is not what its source gives: run trainer/web/build.sh" >&2
                exit 1
            fi
        done
        echo "every module in the tree is what its source gives, byte for byte"
    else
        in_node "$live/built"
        echo "built by another compiler than $(rustc --version): the bytes of the modules have not been compared, only the logits"
        not_run "the bytes of the WebAssembly modules, because this is another compiler than theirs"
    fi
else
    echo "rustup cannot install the target wasm32-unknown-unknown here: the modules HAVE NOT BEEN COMPARED with their source"
    not_run "the WebAssembly modules against their source"
fi
rm -r "$live"

step "an exported model in ONNX Runtime and tract"
onnx=$(mktemp -d)
trainer export data/lenet.weights --format onnx --out "$onnx/lenet.onnx"
trainer evaluate data/lenet.weights --logits "$onnx/logits.safetensors"
"$wheels/bin/python" tests/onnx_runtimes.py "$onnx/lenet.onnx" "$onnx/logits.safetensors"
"$wheels/bin/python" tests/onnx_imports.py "$onnx/lenet.onnx" "$trainer"
trainer export data/lenet-int8.weights --format onnx --out "$onnx/int8.onnx"
trainer evaluate data/lenet-int8.weights --logits "$onnx/int8.safetensors"
"$wheels/bin/python" tests/onnx_int8.py "$onnx/int8.onnx" "$onnx/int8.safetensors"
rm -r "$onnx"
if python3 -c 'import numpy, safetensors, torch' 2>/dev/null; then
    python3 docs/pytorch.py data/lenet.weights
else
    echo "no torch here: docs/pytorch.py has not run"
    not_run "docs/pytorch.py, because torch is not installed here"
fi

step "CUDA without a GPU: PTX, kernels on the host, the trainer on a stand-in driver"
nvidia=$(echo "$wheels"/lib/python3*/site-packages/nvidia)
(
    export PATH="$nvidia/cuda_nvcc/bin:$PATH" LD_LIBRARY_PATH="$nvidia/cuda_nvrtc/lib"
    cargo test -q --test cuda ptx:: -- --include-ignored
    cargo test -q --test cuda -- --ignored host:: driver::
    if command -v nvidia-smi >/dev/null; then
        cargo test -q --test cli -- --ignored cuda:: --skip no_library
        cargo test -q --test cuda gpu:: -- --ignored --nocapture
        trainer bench --device cuda
        if [ "$(nvidia-smi -L | wc -l)" -ge 2 ]; then
            cargo test -q --test cuda gpus:: -- --ignored --nocapture
        else
            echo "one GPU here: the test on two has not run"
        fi
    else
        cargo test -q --test cli cuda:: -- --ignored
        echo "no GPU here: the tests on one have not run"
    fi
)
if ! command -v nvidia-smi >/dev/null; then
    not_run "the tests on a GPU, because there is none here"
elif [ "$(nvidia-smi -L | wc -l)" -lt 2 ]; then
    not_run "the test on two GPUs, because there is one here"
fi

step "lenet-core as a package"
cargo package -q -p lenet-asm -p lenet-core --allow-dirty
# The first line, which names the commit, is present only in a git checkout.
cargo package -q -p lenet-core --allow-dirty --list | grep -v '^\.cargo_vcs_info' | diff tests/lenet-core-package.txt -

step "dependencies of lenet-core: no std, no arrays, no GPU"
tree=$(cargo tree -p lenet-core -e normal --all-features --prefix none)
echo "$tree"
if grep -E '^(ndarray|cudarc|rayon|trainer|firmware) ' <<<"$tree"; then exit 1; fi

step
}

devices() {
# Users build the firmware with all debug information (firmware/.cargo/config.toml). Here it has line tables only, because it then
# compiles in less time. The default network then takes the same number of instructions, and `lenet-d2l` takes 0.02 % fewer.
export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only

step "lenet-core for Cortex-M0, M3, M4F and M33, and for RISC-V"
for target in $cortex_m $riscv; do
    cross cargo build -q -p lenet-core --release --all-features --target "$target"
done

step "firmware for every board"
(cd firmware/examples/embassy-nrf52840 && cross cargo build -q --release --locked)
# `build-all.sh` must ignore CARGO_TARGET_DIR, so that each board has its own folder.
CARGO_TARGET_DIR=elsewhere cross firmware/build-all.sh
# Builds the emulated boards again, with the int8 kernels.
LENET_WEIGHTS=$PWD/data/lenet-int8.weights cross firmware/build-all.sh \
    mps2-an386 mps2-an500 mps2-an505 netduinoplus2 microbit pico
cross firmware/build-networks.sh
(cd firmware/riscv && cross cargo build -q --release)

step "lints of the firmware"
# This step follows the builds, because it then uses their compiled macros and build scripts. It checks one board for each hardware
# abstraction layer, and two without. The other boards differ from one of these in a few lines only.
for board in microbit-v2 stm32f4discovery pico pico2 mps2-an386 microbit; do
    (cd firmware && cross cargo clippy -q --locked --release --no-default-features --features "$board" \
        --config "boards/$board/config.toml" -- -D warnings)
done
(cd firmware/riscv && cross cargo clippy -q --release -- -D warnings)
(cd firmware && oldest_cross check -q --locked --release --no-default-features --features mps2-an386 \
    --config boards/mps2-an386/config.toml --target-dir ../target/oldest)

step "the emulated boards against the host"
# Builds the program with the features of the tests, if `host` has not done so yet.
cargo test -q --no-run --test cli
cargo test -q --test firmware -- --ignored
cargo test -q --test device -- --ignored --test-threads 1
cargo test -q --test pico -- --ignored --nocapture --test-threads 2

step "trainer device in int8, and the estimated cycles"
trainer device compare --qemu microbit --weights data/lenet-int8.weights --images 3
trainer device bench --qemu microbit --weights data/lenet-int8.weights
trainer device evaluate --qemu stm32vldiscovery --weights data/lenet-int8.weights --images 100
python3 firmware/cycles.py target/firmware/mps2-an386/thumbv7em-none-eabihf/release/bench data/lenet.weights

step "the commands of the README and the book, and the output that these show"
python3 docs/commands.py "$trainer"

step "the output of the typical sessions, as docs/src/journeys.md shows it"
cross env TRAINER="$trainer" docs/journeys.sh --check

step "NEON, emulated: the unit tests of lenet-training, and the parameters' hash"
(
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
    # `--no-default-features` leaves out the networks of the tests, whose kernels take most of the time to compile, and the features
    # of the trainer. A program may depend on the trainer without them; it is compiled only.
    neon() {
        library=std,panic_unwind,test cross cargo "$1" -q --no-default-features --target "$arm64" \
            -p lenet-training -p lenet-test-support "${@:2}"
    }
    neon build -p trainer --lib
    neon test --lib
    # The other tests of `cpu_bits` would show nothing more: with this hash, the states are those of x86-64.
    neon test --test cpu_bits -- every_instruction_set
)

step
}

step
log=$(mktemp)
# A process group of its own, which can be ended as a whole.
set -m
devices </dev/null >"$log" 2>&1 &
other=$!
set +m
failed() {
    kill -- "-$other" 2>/dev/null || true
    printf '\n== output of the half `devices`\n'
    cat "$log"
    echo "ci.sh failed${name:+ in the step of the half \`host\`: $name}" >&2
    rm -r "$record" "$log"
}
trap failed EXIT
host
wait "$other"
trap - EXIT
cat "$log"

printf '\n== seconds of each step, in the order in which they ended\n'
cat "$record/seconds"
sed 's/^/NOT RUN: /' "$record/not_run"
if [ -s "$record/not_run" ]; then
    echo "all other checks passed in $SECONDS s"
else
    echo "all checks passed in $SECONDS s"
fi
rm -r "$record" "$log"
