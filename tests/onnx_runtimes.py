"""Compares the exported model in ONNX Runtime and in tract with lenet-core on the first 1,000 test images. The logits must agree within
1e-5 of each image's largest logit (or of 1, if that is larger).

    trainer export data/lenet.weights --format onnx --out lenet.onnx
    trainer evaluate data/lenet.weights --logits logits.safetensors
    python tests/onnx_runtimes.py lenet.onnx logits.safetensors

Needs numpy, onnxruntime, safetensors and tract from PyPI.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tract
from safetensors.numpy import load_file

IMAGES = 1000
LIMIT = 1e-5

model, logits = sys.argv[1:]
path = Path(__file__).parent / "../data/fashion-mnist/t10k-images-idx3-ubyte.gz"
pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
images = pixels.reshape(-1, 1, 28, 28)[:IMAGES].astype(np.float32) / np.float32(255)
expected = load_file(logits)["logits"][:IMAGES]


def by_onnxruntime():
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def by_tract():
    network = tract.onnx().load(model)
    network.set_input_fact(0, f"{IMAGES},1,28,28,f32")
    return network.into_model().into_runnable().run([images])[0].to_numpy()


failed = False
runtimes = {
    f"ONNX Runtime {onnxruntime.__version__}": by_onnxruntime,
    f"tract {tract.version()}": by_tract,
}
for runtime, run in runtimes.items():
    found = run()
    assert found.shape == (IMAGES, 10), found.shape
    differences = np.abs(found - expected)
    worst = float(differences.max())
    relative = float((differences / np.maximum(1, np.abs(expected).max(1, keepdims=True))).max())
    others = int((found.argmax(1) != expected.argmax(1)).sum())
    print(f"{runtime}: largest difference {worst:.2e}, relative {relative:.2e}, {others} of {IMAGES} in another class")
    failed |= not relative <= LIMIT
sys.exit(failed)
