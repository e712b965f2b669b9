"""Runs the trainer's commands that the README and the book show, in their order: docs/commands.py TRAINER

Each page gets a folder of its own, with the data set and the weights of the repository, in which the commands of its `sh` and
`console` blocks run. Fails if a command does not succeed, or prints something else than its `console` block shows. What is not run is
listed with the reason. The commands that emulate a board need what `firmware/build-all.sh` builds (see ci.sh).
"""

import difflib
import glob
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
# docs/journeys.sh runs the commands of journeys.md.
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs/src").glob("*.md")) if page.name != "journeys.md")]

# The first pattern that a command matches says why it does not run here.
NOT_RUN = [
    (r"--port|--probe", "needs a board"),
    (r"--tcp", "needs the emulated Pico; tests/tests/pico.rs runs it there"),
    (r"LENET_|runs/mine", "needs the program built for another network; ci.sh tests the networks in tests/tests/networks.rs"),
    (r"--example", "is another program, which ci.sh runs by itself"),
    (r"\bDIR\b", "stands for a folder of the reader"),
]

# Files of the reader, which a page takes as given.
MADE = {
    "exchange.md": [
        "export data/lenet.weights --format safetensors --out net.safetensors",
        "evaluate data/lenet.weights --logits outputs.safetensors",
    ]
}


def commands(page):
    """The trainer's commands in a page's `sh` and `console` blocks. With those of `console` blocks comes the output shown."""
    for kind, block in re.findall(r"^ *```(sh|console)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.S | re.M):
        if kind == "sh":
            shown = [(line.split(" # ")[0].strip(), None) for line in block.replace("\\\n", " ").splitlines()]
        else:
            shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
        for command, output in shown:
            if re.search(r"^(\w+=\S+ )*(trainer( |$)|cargo run .*-p trainer)", command):
                yield command, output


def comparable(output):
    """The output without trailing spaces, and without what each run changes."""
    output = re.sub(r" +$", "", output, flags=re.M)
    output = re.sub(r"time \d+\.\d sec", "time T sec", output)
    output = re.sub(r"\d+\.\d+ ms an image", "T ms an image", output)
    return re.sub(r"\d{8}-\d{6}-seed", "DATE-seed", output)


def difference(shown, printed):
    """Returns how what a page shows differs from what was printed. A line of three dots stands for any lines."""
    shown, printed = comparable(shown), comparable(printed)
    pattern = "".join(r"(.*\n)*?" if line == "...\n" else re.escape(line) for line in shown.splitlines(keepends=True))
    if not re.fullmatch(pattern, printed):
        lines = difflib.unified_diff(shown.splitlines(), printed.splitlines(), "the page", "the program", lineterm="")
        return "\n".join(lines) or "they differ only in the ends of lines"


def main():
    trainer = str(pathlib.Path(sys.argv[1]).resolve())
    # The project's settings in this shell must not change what the program prints. The pages show what it prints without a GPU.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LENET_")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}
    ran = compared = 0
    for page in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "data").symlink_to(ROOT / "data")

            def run(arguments):
                # A pattern such as `certificates/*.json` stands for the files.
                words = [sorted(glob.glob(word, root_dir=folder)) or [word] for word in shlex.split(arguments)]
                return subprocess.run(
                    [trainer, *sum(words, [])], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
                )

            for arguments in MADE.get(page.name, []):
                run(arguments).check_returncode()
            for command, shown in commands(page):
                reason = next((reason for pattern, reason in NOT_RUN if re.search(pattern, command)), None)
                if reason:
                    print(f"not run: {page.name}: {command}: {reason}")
                    continue
                _, arguments = re.match(r"(trainer|cargo run .*?-p trainer(?: --)?)\s*(.*)", command).groups()
                result = run(arguments)
                if result.returncode != 0:
                    sys.exit(f"{page.name}: {command}\n{result.stdout}{result.stderr}exit code {result.returncode}")
                if shown is not None:
                    compared += 1
                    if different := difference(shown, result.stdout):
                        sys.exit(f"{page.name}: {command}\n{different}")
                print(f"ran: {page.name}: {command}")
                ran += 1
    assert ran >= 20 and compared >= 5, f"{ran} commands, {compared} outputs: are the pages still found?"


main()
