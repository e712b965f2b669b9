"""Train here, load the weights in PyTorch, and compare both programs layer by layer on the test set.

    pip install numpy safetensors torch
    python docs/pytorch.py              # trains one epoch first
    python docs/pytorch.py WEIGHTS      # a weights file that is there already

Ends with exit code 3 if any output of any layer differs by more than 2e-5.
"""

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
PIXELS = ROOT / "data/fashion-mnist/t10k-images-idx3-ubyte.gz"
LABELS = ROOT / "data/fashion-mnist/t10k-labels-idx1-ubyte.gz"


def trainer(*arguments):
    command = ["cargo", "run", "-q", "--release", "-p", "trainer", "--", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT).returncode


# The names of the modules are those of the tensors in the file: conv.0.weight, ..., fc.4.bias.
conv = nn.Sequential(
    nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.MaxPool2d(2),
    nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.MaxPool2d(2),
)  # fmt: skip
fc = nn.Sequential(nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))
net = nn.ModuleDict({"conv": conv, "fc": fc})

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    if len(sys.argv) > 1:
        weights = Path(sys.argv[1]).resolve()
    else:
        weights = folder / "run/lenet.weights"
        if trainer("--epochs", 1, "--out", weights.parent) != 0:
            sys.exit(1)
    if trainer("export", weights, "--format", "safetensors", "--out", folder / "net.safetensors") != 0:
        sys.exit(1)
    net.load_state_dict(load_file(folder / "net.safetensors"))

    pixels = np.frombuffer(gzip.decompress(PIXELS.read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress(LABELS.read_bytes()), np.uint8, offset=8)
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.float32)) / 255
    with torch.no_grad():
        pool1 = conv[:3](images)
        pool2 = conv[3:](pool1)
        fc1 = fc[:2](pool2.flatten(1))
        fc2 = fc[2:4](fc1)
        logits = fc[4](fc2)
    correct = int((logits.argmax(1).numpy() == labels).sum())
    print(f"PyTorch {torch.__version__}: test acc {correct / len(labels):.4f} ({correct} of {len(labels)})")

    outputs = {"conv1": pool1, "conv2": pool2, "fc1": fc1, "fc2": fc2, "logits": logits}
    save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, folder / "outputs.safetensors")
    trainer("evaluate", weights)
    code = trainer("compare", weights, folder / "outputs.safetensors", "--per-layer", "--tolerance", "2e-5")
sys.exit(code)
