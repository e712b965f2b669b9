"""Time the trainer, PyTorch and ONNX Runtime in turn, and print medians and ratios. Run it on a quiet machine; see README.md.

A round consists of one run of `trainer bench` and the same work in both configurations of lenet.py. With `--burn`, burn-flex does the
same work too, and for `lenet`, ONNX Runtime runs the forward pass of one image. Because all of them run in each round, a change of the
machine's speed affects all of them. A ratio is the median of the ratios of the rounds. The load is printed, because other programs on
the machine distort the times with several threads first.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import tomllib
from pathlib import Path

import numpy
import onnxruntime
import torch

import lenet

ROOT = Path(__file__).resolve().parents[3]
BURN = ROOT / "trainer" / "benches" / "burn"


def build(network):
    """Build the trainer for a network."""
    command = ["cargo", "build", "--quiet", "--release", "-p", "trainer"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"LENET_NETWORK": network})


def trainer(*arguments):
    command = ["target/release/trainer", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def ours(threads, batch_size):
    options = ["--threads", str(threads), "--batch-size", str(batch_size)]
    return json.loads(trainer("bench", "--json", "--epochs", "1", "--data", "data/fashion-mnist", *options))


def burn_version():
    """Build burn-flex's side, and return burn-flex's version."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked"], cwd=BURN, check=True)
    packages = tomllib.loads((BURN / "Cargo.lock").read_text())["package"]
    return next(package["version"] for package in packages if package["name"] == "burn-flex")


def burn(threads, steps):
    """Return burn-flex's times, and its loss at the start and after 200 steps. Fails if the loss has not fallen."""
    command = ["target/release/burn-lenet", "--threads", str(threads), "--steps", str(steps)]
    return json.loads(subprocess.run(command, cwd=BURN, check=True, stdout=subprocess.PIPE).stdout)


class OnnxRuntime:
    """Run the exported network in ONNX Runtime on one thread, one image at a time. Input and output are bound only once."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/lenet.onnx"
            trainer("export", "data/lenet.weights", "--format", "onnx", "--out", path)
            self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        image = numpy.random.default_rng(0).random((1, 1, 28, 28), numpy.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input(self.session.get_inputs()[0].name, image)
        self.binding.bind_output(self.session.get_outputs()[0].name)
        self.forward_us()

    def forward_us(self):
        """Return the median time of a forward pass, in us."""
        run = self.session.run_with_iobinding
        return 1e6 * statistics.median(lenet.seconds(run, self.binding) for _ in range(2000))


class Theirs:
    """A configuration of lenet.py, after a warm-up."""

    def __init__(self, network, config, batch_size, data):
        self.trainer = lenet.Trainer(network, config, batch_size, *data)
        self.batches = [index for index in self.trainer.shuffled() if len(index) == batch_size]
        self.next = 0
        self.steps(10)
        self.evaluation_ms()

    def steps(self, count):
        """Return the median time of a step, in ms."""
        times = []
        for _ in range(count):
            self.next = (self.next + 1) % len(self.batches)
            times.append(lenet.seconds(self.trainer.step, self.batches[self.next]))
        return 1e3 * statistics.median(times)

    def evaluation_ms(self):
        return 1e3 * min(lenet.seconds(self.trainer.accuracy) for _ in range(2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=lenet.NETWORKS, default="lenet")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=20, help="PyTorch's and burn's timed steps a round")
    parser.add_argument("--burn", action="store_true", help="build burn-flex's side and time it too")
    args = parser.parse_args()
    if args.burn and args.network != "lenet":
        parser.error("burn-flex's side is written for lenet only")

    build(args.network)
    data = lenet.load(lenet.DATA, "train"), lenet.load(lenet.DATA, "t10k")
    lenet.check_same_function(args.network, *data)
    theirs = {config: Theirs(args.network, config, 256, data) for config in ("fastest", "plain")}
    onnx = OnnxRuntime() if args.network == "lenet" else None
    print(f"{args.network}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), onnxruntime {onnxruntime.__version__}, load {os.getloadavg()[0]:.2f}")

    if args.burn:
        print(f"burn-flex {burn_version()}")
    rounds = {threads: [] for threads in args.threads}
    for _ in range(args.rounds):
        for threads in args.threads:
            torch.set_num_threads(threads)
            row = {"ours": ours(threads, 256), "small": ours(threads, 64)}
            for config, job in theirs.items():
                row[config] = {"step_ms": job.steps(args.steps)}
            if args.burn:
                row["burn-flex"] = burn(threads, args.steps)
            if onnx:
                row["onnx_us"] = onnx.forward_us()
            row["fastest"]["evaluation_ms"] = theirs["fastest"].evaluation_ms()
            rounds[threads].append(row)

    def line(what, value):
        values = sorted(value(row) for row in rounds[threads])
        print(f"  {what:44} {statistics.median(values):8.2f}  ({values[0]:.2f} to {values[-1]:.2f})")

    for threads in args.threads:
        print(f"{threads} threads, {args.rounds} rounds: median (least to most)")
        line("ours, step of 256, ms", lambda row: row["ours"]["step_ms"])
        for config in theirs:
            line(f"PyTorch {config}, step of 256, ms", lambda row: row[config]["step_ms"])
            line(f"PyTorch {config} / ours", lambda row: row[config]["step_ms"] / row["ours"]["step_ms"])
        if args.burn:
            line("burn-flex, step of 256, ms", lambda row: row["burn-flex"]["step_ms"])
            line("burn-flex / ours", lambda row: row["burn-flex"]["step_ms"] / row["ours"]["step_ms"])
        line("ours, evaluation of 10,000, ms", lambda row: row["ours"]["evaluation_ms"])
        line("PyTorch fastest, evaluation, ms", lambda row: row["fastest"]["evaluation_ms"])
        line("PyTorch fastest / ours, evaluation", lambda row: row["fastest"]["evaluation_ms"] / row["ours"]["evaluation_ms"])
        if args.burn:
            line("burn-flex, evaluation, ms", lambda row: row["burn-flex"]["evaluation_ms"])
            line("burn-flex / ours, evaluation", lambda row: row["burn-flex"]["evaluation_ms"] / row["ours"]["evaluation_ms"])
        line("definition's multiply-adds / FMA peak, %", lambda row: 100 * row["ours"]["share_of_peak"])
        line("batch 64 / batch 256, time an image", lambda row: 4 * row["small"]["step_ms"] / row["ours"]["step_ms"])
        line("lenet_core::forward, one image, us", lambda row: row["ours"]["forward_us"])
        if onnx:
            line("ONNX Runtime, one image, us", lambda row: row["onnx_us"])
            line("ONNX Runtime / ours, one image", lambda row: row["onnx_us"] / row["ours"]["forward_us"])
    if {1, 2} <= rounds.keys():
        pairs = zip(rounds[1], rounds[2])
        scaling = [one["ours"]["step_ms"] / two["ours"]["step_ms"] for one, two in pairs]
        print(f"one thread / two threads, step of 256: {statistics.median(scaling):.2f}")
    print(f"load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
