#!/usr/bin/env bash
# Runs the commands that new users type in a fresh clone, and prints the page docs/src/journeys.md:
#
#     docs/journeys.sh > docs/src/journeys.md
#     docs/journeys.sh --check    # compares with the page instead, apart from times and the names of devices
#     docs/journeys.sh --ready    # only checks that the files that the commands write do not exist yet
#
# It needs what ci.sh installs for the emulated boards. It fails if a command does not end with the expected exit code. The environment
# variable TRAINER names the program; without it, the script builds it and the firmware.
set -euo pipefail
# Otherwise a failure within `$(...)` would not end the script.
shopt -s inherit_errexit
cd -P "$(dirname "$0")/.."
clone=$PWD
# What the commands write, in the clone.
written=(runs/student runs/student-1 runs/shapes runs/longer runs/device.json mine)
for path in "${written[@]}"; do
    if [ -e "$path" ]; then echo "$path: already exists; move or remove it, because $0 writes it" >&2 && exit 1; fi
done
[ "${1:-}" != --ready ] || exit 0
# The settings of this shell must not change what the programs print. The page shows what they print without a GPU.
unset "${!LENET_@}" DEFMT_LOG
export CARGO_TERM_COLOR=never CARGO_TERM_QUIET=true COLUMNS=100 CUDA_VISIBLE_DEVICES=
places=$(mktemp -d)
trap 'rm -rf "$places"; cd "$clone"; rm -rf "${written[@]}"; rmdir runs 2>/dev/null || true' EXIT

# The path as a pattern of sed.
literally=$(sed 's/[].[*^$\|]/\\&/g' <<<"$clone")

# see [CODE] COMMAND: prints the command and its output, and fails unless the exit code is CODE, by default 0.
see() {
    local expected=0 code=0
    if [[ $1 =~ ^[0-9]+$ ]]; then expected=$1 && shift; fi
    printf '```console\n$ %s\n' "$1"
    (eval "$1") 2>&1 | sed "s|$literally|.|g; s| *$||" || code=$?
    [ "$expected" = 0 ] || echo "(exit code $code)"
    printf '```\n\n'
    [ "$code" = "$expected" ] || { echo "\`$1\` ended with $code instead of $expected" >&2 && exit 1; }
}
say() { printf '%s\n\n' "$1"; }
if [ -z "${TRAINER:-}" ]; then
    # Build first, so that the output of cargo is not part of the page.
    cargo build --release -p trainer >&2
    firmware/build-all.sh mps2-an386 >&2
    TRAINER=$(realpath "${CARGO_TARGET_DIR:-target}")/release/trainer
fi
trainer() { "$TRAINER" "$@"; }

page() {
say '# Four typical sessions'
say 'This page shows what four kinds of users type in a fresh clone, and what they see. After it you know which commands fit your own
task. The script `docs/journeys.sh` recorded the output on two cores of an AMD EPYC with AVX-512. `trainer` stands for
`cargo run --release -p trainer --`.'

say '## A student who follows the course'
say 'Train the network of the course with its settings:'
see 'trainer --out runs/student'
say 'Find out which classes the network confuses. Rows are the true classes, columns the answers of the network:'
see 'trainer evaluate runs/student/lenet.weights --confusion'
say 'Look at a single image. The network is not sure about this one, and wrong:'
see 'trainer predict runs/student/lenet.weights --index 7'
say 'Train with another seed for one epoch. The trainer does not overwrite an earlier run, but can continue it:'
see 'trainer --seed 1 --epochs 1 --out runs/student-1 --quiet'
see 1 'trainer --seed 1 --epochs 1 --out runs/student-1'
see 'trainer train --resume runs/student-1 --epochs 2 --log-format json'

say '## A developer of firmware'
say 'Run the network on an emulated Cortex-M4F. With a micro:bit v2 connected, `cargo run --release` in the same folder flashes it instead.'
see 'cd firmware && cargo qemu'
say 'Each line has the true class, the answer of the network, its probability, and the time. The times are those of the emulator and say nothing
about a real board. [`firmware/RESULTS.md`](../../firmware/RESULTS.md) has the counts that are exact without one.'
say 'Run the same network in 8-bit integers on a chip with 8 KB of RAM and no floating-point unit. An image takes 877,606 instructions there:'
see 'cd firmware && cargo qemu-m3'
say 'Use other weights. QEMU loads them at start:'
see 'trainer device info --qemu --weights runs/student/lenet.weights'
say 'For a real board, the build puts them into the program:'
see 'cd firmware && LENET_WEIGHTS=../runs/student/lenet.weights cargo build --release --bin infer && ls ../target/firmware/microbit-v2/thumbv7em-none-eabihf/release/infer'
say 'If the file does not exist, the build says so:'
see 101 'cd firmware && LENET_WEIGHTS=../runs/nothing.weights cargo build --release'

say '## A researcher with their own pictures'
say 'The folder `mine` has three classes of PNG files, drawn by a script. First check them:'
python3 - "$places/mine" <<'PYTHON'
import pathlib, random, struct, sys, zlib

def png(path, pixel, side=28):
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + bytes(pixel(y, x) for x in range(side)) for y in range(side))
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))

random.seed(1)
for name in ("disc", "ring", "square"):
    for n in range(400):
        cy, cx, r = random.uniform(11, 17), random.uniform(11, 17), random.uniform(5, 9)
        def pixel(y, x):
            far = max(abs(y - cy), abs(x - cx)) if name == "square" else ((y - cy) ** 2 + (x - cx) ** 2) ** 0.5
            inside = far < r and not (name == "ring" and far < r - 3)
            return min(255, max(0, int(random.gauss(200 if inside else 20, 20))))
        png(pathlib.Path(sys.argv[1], "train" if n < 300 else "test", name, f"{n:03}.png"), pixel)
png(pathlib.Path(sys.argv[1], "train", "disc", "too-large.png"), lambda y, x: 0, 64)
PYTHON
cp -r "$places/mine" mine
see 1 'trainer data check --data mine'
say 'Remove the picture that has the wrong size, and check again:'
see 'rm mine/train/disc/too-large.png && trainer data check --data mine'
say 'Train, and hold out a tenth of the images to choose the best epoch:'
see 'trainer --data mine --val-split 0.1 --epochs 60 --patience 10 --batch-size 32 --lr 0.003 --out runs/shapes --log-format json | tail -n 1'
say 'With three classes, a third of the answers are right by chance, as the warning and `at_chance` say. A network with sigmoids starts slowly, here for
more than a hundred epochs of 26 steps. `--patience` does not count these epochs, but 60 epochs are too few:'
see 'trainer --data mine --val-split 0.1 --epochs 300 --batch-size 32 --lr 0.003 --out runs/longer --log-format json | tail -n 1'
say 'Look at the metadata of the result, classify a picture, and export the weights for PyTorch:'
see 'trainer summary runs/longer/lenet.weights'
see 'trainer predict runs/longer/lenet.weights mine/test/ring/350.png'
see 'trainer export runs/longer/lenet.weights --format safetensors --out runs/longer/lenet.safetensors'

say '## An engineer who must show that board and host agree'
say 'Ask the board which parameters it has. The SHA-256 identifies the network:'
see 'trainer device info --qemu'
say 'Compare all logits of 1,000 images bit for bit, and keep the report:'
see 'trainer device evaluate --qemu --images 1000 --json > runs/device.json; echo "exit code $?"'
say 'Compare the outputs of every layer:'
see 'trainer device compare --qemu --images 3'
say 'A comparison that finds a difference ends with exit code 3:'
see 3 'trainer compare data/lenet.weights runs/student/lenet.weights | tail -n 5'
}

# comparable FILE: the page without what differs from run to run or from machine to machine, and without the depth of the stack, which
# changes with the compiler.
comparable() {
    sed -E 's/time [0-9.]+ sec/time T sec/; s/, [0-9]+ us$/, T us/; s/"seconds":[0-9.e-]+/"seconds":T/; s/cpu \([^)]*\)/cpu/; s/"working_directory":"[^"]*"/"working_directory":D/; s/[0-9]+ of stack/S of stack/; /^not on a GPU: /d' "$1"
}
# The substitution removes the empty line at the end.
recorded=$(page)
printf '%s\n' "$recorded" >"$places/page.md"
if [ "${1:-}" = --check ]; then
    diff <(comparable docs/src/journeys.md) <(comparable "$places/page.md")
else
    cat "$places/page.md"
fi
