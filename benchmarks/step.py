"""Images per second of the harness, of a notebook-style loop and of the matrix products alone, interleaved.

    make bench            # or: python benchmarks/step.py --rounds 9 --threads 1

Every round times each contender once, in turn and in one process, so that a slow moment of a shared machine hits all
of them; ratios are taken within a round and reported as median and range over rounds. Writes
benchmarks/results/step.md and step.json.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from estimators import REGISTRY
from harness import data
from harness.config import DataConfig, EstimatorConfig, RunConfig
from harness.provenance import cpu_name
from harness.train import start, train_step

RESULTS = Path(__file__).parent / "results"
BATCH, WARM_UP = 128, 5
Loop = Callable[[int], float]


class NotebookImages(TorchDataset[tuple[Tensor, int]]):
    """As torchvision's MNIST: one uint8 tensor, and for each sample a PIL image that `ToTensor` decodes."""

    def __init__(self, images_ND: Tensor) -> None:
        self.images = (images_ND * 255).round().to(torch.uint8).reshape(-1, 28, 28)
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), 0


class NotebookVAE(nn.Module):
    """The seed recipe as a notebook has it: separate layers, ReLU on the logits, sigmoid on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 512), nn.Linear(512, 256), nn.Linear(256, 200)
        self.fc4, self.fc5, self.fc6 = nn.Linear(200, 256), nn.Linear(256, 512), nn.Linear(512, 784)

    def forward(self, x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        logits = F.relu(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))).view(-1, 20, 10)
        uniform = torch.rand_like(logits)
        gumbel = -torch.log(-torch.log(uniform + 1e-20) + 1e-20)
        z = F.softmax((logits + gumbel) / tau, dim=-1).view(-1, 200)
        return torch.sigmoid(self.fc6(F.relu(self.fc5(F.relu(self.fc4(z)))))), F.softmax(logits, dim=-1)


def notebook_loop(images_ND: Tensor) -> Loop:
    """DataLoader, ToTensor, sigmoid + BCE, unfused Adam, `loss.item()` each step."""
    model = NotebookVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(NotebookImages(images_ND), batch_size=BATCH, shuffle=True, drop_last=True)

    def batches() -> Iterator[Tensor]:
        while True:
            for x, _ in loader:
                yield x

    stream = batches()

    def run(n_steps: int) -> float:
        begun, total = time.perf_counter(), 0.0
        for _ in range(n_steps):
            x = next(stream).view(-1, 784)
            optimizer.zero_grad()
            pixels, probs = model(x, 1.0)
            bce = F.binary_cross_entropy(pixels, x, reduction="sum") / len(x)
            kl = torch.sum(probs * torch.log(probs * 10 + 1e-20), dim=-1).sum(dim=-1).mean()
            loss = bce + kl
            loss.backward()
            total += loss.item()
            optimizer.step()
        return time.perf_counter() - begun

    return run


def harness_loop(images: data.Dataset) -> Loop:
    """The harness's own step, gathering included, with the same estimator and sizes."""
    run_config = RunConfig(estimator=EstimatorConfig(name="gumbel_softmax"))
    state = start(run_config, REGISTRY, images.n_pixels, torch.device("cpu"))

    def run(n_steps: int) -> float:
        begun = time.perf_counter()
        order = torch.randperm(len(images.train_ND))[: n_steps * BATCH]
        losses = torch.empty(n_steps, 2)
        for i, index_B in enumerate(torch.split(order, BATCH)):
            losses[i, 0], losses[i, 1] = train_step(state, images.train_batch(index_B), None)
        return time.perf_counter() - begun

    return run


def gemm_loop() -> Loop:
    """Only the matrix products of a step: six forward, six weight gradients, five input gradients."""
    sizes = [784, 512, 256, 200, 256, 512, 784]
    layers = [(torch.randn(BATCH, a), torch.randn(b, a), torch.randn(BATCH, b)) for a, b in pairwise(sizes)]

    def run(n_steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(n_steps):
            for i, (x, w, g) in enumerate(layers):
                _ = x @ w.T, g.T @ x
                if i:
                    _ = g @ w
        return time.perf_counter() - begun

    return run


def measure(loops: dict[str, Loop], rounds: int, n_steps: int) -> dict[str, list[float]]:
    """Return images per second of every loop in every round."""
    for loop in loops.values():
        loop(WARM_UP)
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            found[name].append(n_steps * BATCH / loop(n_steps))
    return found


def row(name: str, values: list[float], form: str) -> str:
    return f"| {name} | {statistics.median(values):{form}} | {min(values):{form}} – {max(values):{form}} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = data.load(DataConfig(name="mnist-mini"))
    loops = {
        "notebook loop": notebook_loop(images.train_ND),
        "harness": harness_loop(images),
        "matrix products alone": gemm_loop(),
    }
    speed = measure(loops, options.rounds, options.steps)
    ratio = [h / n for h, n in zip(speed["harness"], speed["notebook loop"], strict=True)]
    floor = [g / h for g, h in zip(speed["matrix products alone"], speed["harness"], strict=True)]
    where = f"{cpu_name()}, Python {platform.python_version()}, torch {torch.__version__}, {options.threads} thread(s)"
    lines = [
        "# Training step at the seed recipe (784–512–256–20×10, batch 128, float32)",
        f"{where}; {options.rounds} interleaved rounds of {options.steps} steps; `make bench`.",
        "",
        "| | median | range over rounds |",
        "|---|---:|---:|",
        *(row(f"{name}, images/s", values, ",.0f") for name, values in speed.items()),
        row("harness / notebook loop", ratio, ".2f"),
        row("harness step time / matrix products", floor, ".2f"),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "step.json").write_text(json.dumps({"where": where, "images_per_s": speed}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
