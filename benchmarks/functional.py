"""What `sample`, `expect` and `draw_codes` cost beside a direct call of the estimator.

    python benchmarks/functional.py --rounds 15 --steps 100     # a minute

A step is that of a VAE with one hidden layer (batch 100, 784–256–20×10–256–784), on one thread, in a
loop of the user's own with Adam. Every round times each way once, in turn; ratios are taken within a round.
"""

import argparse
import time
from collections.abc import Callable

import record
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from estimators import build, draw_codes, expect, sample

Z = (20, 10)


def steps_of(loss: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> Callable[[int], float]:
    """Return a loop over steps whose loss is a function of logits (B, L, K) and cost."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, Z[0] * Z[1]))
    decoder = nn.Sequential(nn.Linear(Z[0] * Z[1], 256), nn.ReLU(), nn.Linear(256, 784))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], fused=True)
    x_BD = torch.rand(100, 784).round()

    def cost(z_SBLK: Tensor) -> Tensor:
        pixels_SBD = decoder(z_SBLK.flatten(-2))
        return F.binary_cross_entropy_with_logits(pixels_SBD, x_BD.expand_as(pixels_SBD), reduction="none").sum(-1)

    def loop(n_steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss(encoder(x_BD).unflatten(-1, Z), cost).backward()
            optimizer.step()
        return time.perf_counter() - begun

    return loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=100, help="of a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reinmax, rloo = build("reinmax"), build("rloo")

    def drawn(logits: Tensor, cost: Callable[[Tensor], Tensor]) -> Tensor:
        draw = draw_codes(logits, "rloo")
        return draw.loss(cost(draw.z)).mean()

    ways = {
        "`sample` with reinmax": (
            steps_of(lambda logits, cost: cost(sample(logits, "reinmax").unsqueeze(0)).mean()),
            steps_of(lambda logits, cost: reinmax(logits, cost).cost_B.mean()),
        ),
        "`expect` with rloo": (
            steps_of(lambda logits, cost: expect(logits, cost, "rloo").mean()),
            steps_of(lambda logits, cost: rloo(logits, cost).cost_B.mean()),
        ),
        "`draw_codes` with rloo": (
            steps_of(drawn),
            steps_of(lambda logits, cost: rloo(logits, cost).cost_B.mean()),
        ),
    }
    loops = {
        f"{name}, {kind}": way for name, pair in ways.items() for kind, way in zip(("new", "old"), pair, strict=True)
    }
    times = record.interleaved(loops, options.rounds, options.steps)
    rows, figures = [], {}
    for name in ways:
        new, old = times[f"{name}, new"], times[f"{name}, old"]
        ratio = record.ratios(new, old)
        figures[name] = {"ms": [1e3 * each for each in new], "ratio": ratio}
        rows.append([name, record.spread([1e3 * each for each in old]), record.spread(ratio, ".3f")])
    lines = record.table(["in a step", "direct call, ms", "ratio to it"], rows)
    record.write("functional", "Estimators in a loop of your own", lines, figures)


if __name__ == "__main__":
    main()
