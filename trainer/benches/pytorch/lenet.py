"""Train the same network with PyTorch on the CPU, and measure the time or the accuracy. Run manually; see README.md.

`--network` names a description in `lenet-core/networks`. `NETWORKS` contains the same networks for PyTorch.

Both configurations train the same function on the same data, which is converted to f32 beforehand and shuffled for each epoch:

* `plain` is the course's loop, with contiguous tensors and the default `torch.optim.Adam`.
* `fastest` is the fastest configuration that was found: channels_last tensors, fused Adam, and max-pooling before the activation.
  The activation is monotone, so the result is the same, and it is computed for a quarter of the values only. README.md lists what
  else was tried.

A step consists of everything from selecting the images of the batch to Adam's update. An epoch has 235 steps, the last of 96
images. The evaluation counts the correct predictions among the 10,000 test images.
"""

import argparse
import gzip
import json
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

DATA = Path(__file__).resolve().parents[3] / "data" / "fashion-mnist"
WARM_UP_STEPS = 20


# The activation, the pooling and the padding of the first convolution.
NETWORKS = {
    "lenet": (nn.Sigmoid, nn.MaxPool2d, 0),
    "relu": (nn.ReLU, nn.MaxPool2d, 0),
    "lenet-d2l": (nn.Sigmoid, nn.AvgPool2d, 2),
}


class LeNet(nn.Module):
    def __init__(self, network, pool_first):
        super().__init__()
        activation, pool, padding = NETWORKS[network]
        # Average pooling gives another result before the activation than after it.
        pool_first = pool_first and pool is nn.MaxPool2d

        def activated():
            pair = (activation(), pool(2))
            return reversed(pair) if pool_first else pair

        self.conv = nn.Sequential(nn.Conv2d(1, 6, 5, padding=padding), *activated(), nn.Conv2d(6, 16, 5), *activated())
        features = 16 * (4 + padding // 2) ** 2
        self.fc = nn.Sequential(
            nn.Linear(features, 120), activation(), nn.Linear(120, 84), activation(), nn.Linear(84, 10)
        )

    def forward(self, images):
        return self.fc(self.conv(images).flatten(1))


class Trainer:
    """The model, the optimiser and the data in a configuration."""

    def __init__(self, network, config, batch_size, train, test, seed=0, lr=0.001):
        fastest = config == "fastest"
        layout = torch.channels_last if fastest else torch.contiguous_format
        torch.manual_seed(seed)
        self.model = LeNet(network, pool_first=fastest).to(memory_format=layout)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=lr, fused=fastest)
        self.train, self.test = ((x.contiguous(memory_format=layout), y) for x, y in (train, test))
        self.batch_size = batch_size
        self.test_batch_size = 1000 if fastest else batch_size

    def shuffled(self):
        """Return the indices of the images in each batch of an epoch."""
        return torch.randperm(len(self.train[1])).split(self.batch_size)

    def step(self, index):
        images, labels = self.train
        loss = F.cross_entropy(self.model(images[index]), labels[index])
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.item()

    def epoch(self, schedule=None):
        """Train on all images once, and return the mean loss per image, computed before each step."""
        loss = 0
        for index in self.shuffled():
            loss += self.step(index) * len(index)
            if schedule:
                schedule.step()
        return loss / len(self.train[1])

    @torch.inference_mode()
    def accuracy(self):
        batches = zip(*(tensor.split(self.test_batch_size) for tensor in self.test))
        return sum((self.model(x).argmax(1) == y).sum().item() for x, y in batches) / len(self.test[1])


def read_idx(path):
    """Read a gzipped IDX file of bytes: two zeros, the type, the rank, the big-endian dimensions, and the data."""
    data = gzip.decompress(path.read_bytes())
    assert data[:3] == b"\0\0\x08", f"{path} is not an IDX file of bytes"
    dims = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dims)


def load(folder, name):
    """Return the images, (N, 1, 28, 28) in f32 from 0 to 1, and the labels."""
    images = torch.tensor(read_idx(folder / f"{name}-images-idx3-ubyte.gz"))
    labels = torch.tensor(read_idx(folder / f"{name}-labels-idx1-ubyte.gz"))
    return images[:, None].float() / 255, labels.long()


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def check_same_function(network, train, test):
    plain, fastest = (Trainer(network, config, 256, train, test) for config in ("plain", "fastest"))
    fastest.model.load_state_dict(plain.model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(*(trainer.model(trainer.test[0][:256]) for trainer in (fastest, plain)))


def measure_time(args, train, test):
    """Return median times. Each kind of work runs once untimed, because memory and kernels are set up on first use."""
    check_same_function(args.network, train, test)
    trainer = Trainer(args.network, args.config, args.batch_size, train, test)
    for index in (*trainer.shuffled()[:WARM_UP_STEPS], trainer.shuffled()[-1]):
        trainer.step(index)
    full = [index for index in trainer.shuffled() if len(index) == args.batch_size]
    steps = [seconds(trainer.step, full[n % len(full)]) for n in range(args.steps)]
    epochs = [seconds(trainer.epoch) for _ in range(args.epochs)]
    trainer.accuracy()
    evaluations = [seconds(trainer.accuracy) for _ in range(5)]
    return {
        "step_ms": round(statistics.median(steps) * 1e3, 2),
        "epoch_s": round(statistics.median(epochs), 2),
        "evaluate_ms": round(statistics.median(evaluations) * 1e3, 1),
    }


def measure_accuracy(args, train, test):
    """Return the mean loss, the test accuracy and the seconds of training so far, which do not include the tests, of each epoch
    for each seed, and print them during the training."""
    stream = sys.stderr if args.json else sys.stdout
    seeds = []
    for seed in range(args.seeds):
        trainer = Trainer(args.network, args.config, args.batch_size, train, test, seed, args.lr)
        schedule = None
        if args.cosine:
            # The learning rate falls along half a cosine, to zero after the last step.
            steps = args.epochs * math.ceil(len(train[1]) / args.batch_size)
            schedule = torch.optim.lr_scheduler.LambdaLR(trainer.adam, lambda n: (1 + math.cos(math.pi * n / steps)) / 2)
        epochs, trained = [], 0
        for epoch in range(1, args.epochs + 1):
            start = time.perf_counter()
            loss = trainer.epoch(schedule)
            trained += time.perf_counter() - start
            accuracy = trainer.accuracy()
            print(
                f"seed {seed} epoch {epoch}: loss {loss:.4f}, test accuracy {accuracy:.4f}, {trained:.1f} s of training",
                file=stream,
                flush=True,
            )
            epochs.append({"loss": round(loss, 4), "accuracy": accuracy, "seconds": round(trained, 1)})
        seeds.append(epochs)
    return {"seeds": seeds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--config", choices=("plain", "fastest"), default="plain")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four gzipped IDX files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200, help="timed steps, of full batches")
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs, or epochs of --accuracy")
    parser.add_argument("--accuracy", action="store_true", help="train from several seeds instead of timing")
    parser.add_argument("--lr", type=float, default=0.001, help="learning rate of --accuracy")
    parser.add_argument("--cosine", action="store_true", help="with --accuracy, let the learning rate fall to zero along a cosine")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    data = load(args.data, "train"), load(args.data, "t10k")
    result = {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "network": args.network,
        "config": args.config,
        "threads": args.threads,
        "batch_size": args.batch_size,
        **(measure_accuracy if args.accuracy else measure_time)(args, *data),
    }
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        if key != "seeds":
            print(f"{key:12} {value}")


if __name__ == "__main__":
    main()
