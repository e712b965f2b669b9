#!/usr/bin/env bash
# Types what a new user would type, in a fresh clone, and prints the page that docs/src/journeys.md is:
#
#     docs/journeys.sh > docs/src/journeys.md
#
# Needs what ci.sh installs for the emulated boards. Ends with an error where a command does not end as it should.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_TERM_QUIET=true COLUMNS=100
places=$(mktemp -d)
trap 'rm -rf "$places"' EXIT
clone=$PWD

# see [CODE] COMMAND: the command and what it printed, as long as it ends with the code (0).
see() {
    local expected=0 code=0
    if [[ $1 =~ ^[0-9]+$ ]]; then expected=$1 && shift; fi
    printf '```console\n$ %s\n' "$1"
    (eval "$1") 2>&1 | sed "s|$clone|.|g; s| *$||" || code=$?
    [ "$expected" = 0 ] || echo "(exit code $code)"
    printf '```\n\n'
    [ "$code" = "$expected" ] || { echo "\`$1\` ended with $code instead of $expected" >&2 && exit 1; }
}
say() { printf '%s\n\n' "$1"; }
trainer() { cargo run --release -p trainer -- "$@"; }

# Built first: a build's time and warnings are no part of the page.
cargo build --release -p trainer >&2
firmware/build-all.sh mps2-an386 >&2

say '# Four journeys'
say 'What new users type in a fresh clone, and what they see, as `docs/journeys.sh` typed it on two cores of an
AMD EPYC with AVX2. `trainer` stands for `cargo run --release -p trainer --`.'

say '## A student with the course open'
see 'trainer --out runs/student'
see 'trainer evaluate runs/student/lenet.weights --confusion'
see 'trainer predict runs/student/lenet.weights --index 7'
say 'A seed later, and stopped too early; the same command again, and going on:'
see 'trainer --seed 1 --epochs 1 --out runs/student-1 --quiet'
see 1 'trainer --seed 1 --epochs 1 --out runs/student-1'
see 'trainer train --resume runs/student-1 --epochs 2 --log-format json'

say '## A developer with a board'
say 'Without one at hand, on an emulated Cortex-M4F; `cargo run --release` in the same folder flashes a micro:bit v2.'
see 'cd firmware && cargo qemu'
say 'The microseconds are those of the emulator on a busy machine and say nothing of a board; what can be counted without one is in
[its results](../../firmware/RESULTS.md).'
say 'Other weights: QEMU loads them at start, a real board has them built in, and says so where there are none.'
see 'trainer device info --qemu --weights runs/student/lenet.weights'
see 'cd firmware && LENET_WEIGHTS=../runs/student/lenet.weights cargo build --release --bin infer && ls ../target/firmware/microbit-v2/thumbv7em-none-eabihf/release/infer'
see 101 'cd firmware && LENET_WEIGHTS=../runs/nothing.weights cargo build --release'

say '## A researcher with pictures of their own'
say 'Three classes of PNG files, drawn by a script in place of the pictures of a microscope.'
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
mine=$PWD/mine
trap 'rm -rf "$places" "$mine"' EXIT
see 1 'trainer data check --data mine'
see 'rm mine/train/disc/too-large.png && trainer data check --data mine'
see 'trainer --data mine --val-split 0.1 --epochs 60 --patience 10 --batch-size 32 --lr 0.003 --out runs/shapes --log-format json | tail -n 1'
say 'A third is chance, as the warning says, and `at_chance`. A net of sigmoids starts flat, here for more than a hundred epochs of 26 steps. Patience
does not count these, but 60 epochs are too few:'
see 'trainer --data mine --val-split 0.1 --epochs 300 --batch-size 32 --lr 0.003 --out runs/longer --log-format json | tail -n 1'
see 'trainer summary runs/longer/lenet.weights'
see 'trainer predict runs/longer/lenet.weights mine/test/ring/350.png'
see 'trainer export runs/longer/lenet.weights --format safetensors --out runs/longer/lenet.safetensors'

say '## An engineer who must show that device and host agree'
see 'trainer device info --qemu'
see 'trainer device evaluate --qemu --images 1000 --json > runs/device.json; echo "exit code $?"'
see 'trainer device compare --qemu --images 3'
see 3 'trainer compare data/lenet.weights runs/student/lenet.weights | tail -n 5'
