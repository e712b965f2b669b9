"""Runs the trainer's commands that the README and the book show, in their order: docs/commands.py TRAINER

Each page gets a folder of its own, with the data set and the weights of the repository, in which its `sh` blocks run. Fails if a
command does not succeed. What is not run is listed with the reason.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/src").glob("*.md"))]

# The first pattern that a command matches says why it does not run here.
NOT_RUN = [
    (r"--port|--probe", "needs a board"),
    (r" device ", "needs the firmware's images; ci.sh runs it where it has built them"),
    (r"LENET_NETWORK|runs/mine", "needs the program built for another network; ci.sh tests the networks in tests/tests/networks.rs"),
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
    """The lines of a page's `sh` blocks that call the trainer, without comments."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split(" # ")[0].strip()
            if re.search(r"^(\w+=\S+ )*(trainer( |$)|cargo run .*-p trainer)", line):
                yield line


def main():
    trainer = str(pathlib.Path(sys.argv[1]).resolve())
    ran = 0
    for page in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "data").symlink_to(ROOT / "data")
            run = lambda arguments: subprocess.run(  # noqa: E731
                [trainer, *arguments.split()], cwd=folder, capture_output=True, text=True
            )
            for arguments in MADE.get(page.name, []):
                run(arguments).check_returncode()
            for command in commands(page):
                reason = next((reason for pattern, reason in NOT_RUN if re.search(pattern, command)), None)
                if reason:
                    print(f"not run: {page.name}: {command}: {reason}")
                    continue
                _, arguments = re.match(r"(trainer|cargo run .*?-p trainer(?: --)?)\s*(.*)", command).groups()
                result = run(arguments)
                if result.returncode != 0:
                    sys.exit(f"{page.name}: {command}\n{result.stdout}{result.stderr}exit code {result.returncode}")
                print(f"ran: {page.name}: {command}")
                ran += 1
    assert ran >= 15, f"{ran} commands: are the pages still found?"


main()
