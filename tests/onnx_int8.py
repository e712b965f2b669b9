"""Compares the exported int8 model in ONNX Runtime with lenet-core on all 10,000 test images.

    trainer export data/lenet-int8.weights --format onnx --out int8.onnx
    trainer evaluate data/lenet-int8.weights --logits int8.safetensors
    python tests/onnx_int8.py int8.onnx int8.safetensors

The graph's QuantizeLinear computes sigmoid(x) * 255 in floats and rounds half to even. lenet-core uses a table of 1,024 entries, whose
index is rounded first. So an output byte of a layer may differ by 1 even if the input bytes are equal, and the following layers add up
their weights times such differences. The limits below are for these images; the script prints the measured values.

Needs numpy, onnx, onnxruntime and safetensors from PyPI.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

# The least number of equal classes among 10,000 images, and the largest difference of a logit; the logits span about 30.
CLASSES_AT_LEAST = 9_980
LOGIT_AT_MOST = 0.3

path, logits = sys.argv[1:]
data = Path(__file__).parent / "../data/fashion-mnist"
read = lambda name, offset: np.frombuffer(gzip.decompress((data / name).read_bytes()), np.uint8, offset=offset)
images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
labels = read("t10k-labels-idx1-ubyte.gz", 8)
expected = load_file(logits)["logits"]

model = onnx.load(path)
onnx.checker.check_model(model, full_check=True)
stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
kinds = {
    node.input[0]: stored[node.input[0]].dtype
    for node in model.graph.node
    if node.op_type == "DequantizeLinear" and node.input[0] in stored
}
assert kinds and set(kinds.values()) == {np.dtype(np.int8), np.dtype(np.int32)}, kinds
floats = [name for name, value in stored.items() if value.dtype == np.float32 and not name.endswith("_scale")]
assert not floats, f"parameters in floats: {floats}"

session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
found = session.run(["logits"], {"image": images})[0]
assert found.shape == expected.shape == (10_000, 10), found.shape
difference = np.abs(found - expected)
same = int((found.argmax(1) == expected.argmax(1)).sum())
right = [int((values.argmax(1) == labels).sum()) for values in (expected, found)]
print(
    f"ONNX Runtime {onnxruntime.__version__}, int8: {same} of 10000 images in the same class, right {right[1]} (lenet-core {right[0]}), "
    f"largest difference of a logit {difference.max():.3f}, mean {difference.mean():.4f}"
)
sys.exit(not (same >= CLASSES_AT_LEAST and difference.max() <= LOGIT_AT_MOST))
