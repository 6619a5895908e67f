"""An update of every optimiser, side by side, with the parameters of the VAE.

    python benchmarks/optimizers.py --rounds 11 --steps 20

Forward and backward passes are not in it. Times are CPU time of one thread, which other processes change less.
`radam, torch` is `torch.optim.RAdam` with its defaults, as public code of this field uses it. The others are those that
a run gets from its settings.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import record
import torch
from loops import SHAPES, Loop

from harness.config import TrainingConfig
from harness.training.optimizers import make_optimizer

TORCH_RADAM = "radam, torch"
REFERENCE = "adam"


def parameters(shape: tuple[int, int]) -> list[torch.nn.Parameter]:
    """Return parameters of the sizes of 784–512–256–L×K and back, with gradients."""
    code = shape[0] * shape[1]
    sizes = [784, 512, 256, code, 256, 512, 784]
    found = []
    for wide, narrow in pairwise(sizes):
        found += [torch.nn.Parameter(0.01 * torch.randn(narrow, wide)), torch.nn.Parameter(torch.zeros(narrow))]
    for one in found:
        one.grad = 0.01 * torch.randn_like(one)
    return found


def updates(optimizer: torch.optim.Optimizer) -> Loop:
    """Return a loop over updates, after the first ones, which RAdam does in another way."""
    for _ in range(10):
        optimizer.step()

    def run(n_steps: int) -> float:
        begun = time.process_time()
        for _ in range(n_steps):
            optimizer.step()
        return time.process_time() - begun

    return run


def contenders(shape: tuple[int, int]) -> dict[str, Loop]:
    def ours(**settings: Any) -> Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]:
        return lambda found: make_optimizer(TrainingConfig(**settings), found)

    makers = {name: ours(optimizer=name) for name in ("adam", "adamw", "radam")}
    makers |= {"sgd": ours(optimizer="sgd", momentum=0.9), TORCH_RADAM: torch.optim.RAdam}
    return {name: updates(make(parameters(shape))) for name, make in makers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines, figures = [], {}
    for shape in SHAPES[:2]:
        title = f"{shape[0]} latents × {shape[1]} classes"
        figures[title] = seconds = record.interleaved(contenders(shape), options.rounds, options.steps)
        rows = []
        for name, values in seconds.items():
            ratio = record.ratios(values, seconds[REFERENCE])
            rows.append([name, record.spread([1e3 * one for one in values]), record.spread(ratio)])
        lines += [f"## {title}", "", *record.table(("", "ms an update", f"over {REFERENCE}"), rows), ""]
    intro = [
        f"784–512–256–L×K and back, CPU time of one thread, float32; {options.rounds} interleaved rounds of"
        f" {options.steps} updates; median (range).",
        "",
    ]
    record.write("optimizers", "Optimisers", intro + lines, figures)


if __name__ == "__main__":
    main()
