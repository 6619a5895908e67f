"""Peak memory of one estimator's training step: `python benchmarks/memory.py [NAME …] [--batch-size 128]`.

Each measurement is a process of its own: the VAE with 784 pixels, an optimiser, three steps. What is printed is the
largest resident memory in the steps minus that before the first one, at each of SHAPES. Without names: of every
estimator, about ten minutes, and benchmarks/results/memory.md is written.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

SHAPES = ((20, 10), (30, 10), (10, 30))
"""Latents × classes: the seed recipe, the largest shape of ReinMax's protocol, and its mirror image."""
RESULTS = Path(__file__).parent / "results"


def measure(name: str, n_latents: int, n_categories: int, batch_size: int) -> float:
    """Return megabytes, in this process. Raises ValueError if the estimator cannot work with the shape."""
    import torch

    from estimators import REGISTRY
    from estimators.declarations import example
    from harness import train
    from harness.config import EstimatorConfig, ModelConfig, RunConfig, TrainingConfig
    from harness.devices import peak_memory_mb, reset_peak_memory
    from harness.schedules import Constant, NoSchedule
    from harness.tasks import Splits
    from harness.training.state import start

    torch.set_num_threads(1)
    example(REGISTRY[name]).check_shape(n_latents, n_categories)
    run = RunConfig(
        estimator=EstimatorConfig(name=name, params=dict(REGISTRY[name].examples)),
        schedule=Constant() if REGISTRY[name].uses_tau else NoSchedule(),
        model=ModelConfig(n_latents=n_latents, n_categories=n_categories),
        training=TrainingConfig(batch_size=batch_size),
    )
    x_BD = torch.rand(batch_size, 784)
    state = start(run, REGISTRY, torch.device("cpu"), Splits(train=x_BD, test=x_BD))
    state.task.logits(x_BD).sum().backward()  # what torch loads on its first backward pass is not the estimator's
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory_mb(device)
    for _ in range(3):
        train.train_step(state, x_BD, None)
    return peak_memory_mb(device) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--shape", type=int, nargs=2, help="measure in this process and print the number only")
    given = parser.parse_args()
    if given.shape:
        print(f"{measure(given.names[0], *given.shape, given.batch_size):.0f}")
        return
    from estimators import REGISTRY

    rows = []
    for name in given.names or REGISTRY:
        rows.append([name, *(apart(name, *shape, given.batch_size) for shape in SHAPES)])
        print(f"{name:<20}" + "".join(f"{cell:>8}" for cell in rows[-1][1:]), flush=True)
    if not given.names:
        RESULTS.joinpath("memory.md").write_text(_page(rows, given.batch_size))


def _page(rows: list[list[str]], batch_size: int) -> str:
    shapes = " | ".join(f"{n_latents}×{n_categories}" for n_latents, n_categories in SHAPES)
    lines = [
        "# Peak memory of a training step",
        f"Megabytes above what the process had before, latents × classes, batch {batch_size}, float32, CPU; a process"
        " for each number; –: not applicable. `python benchmarks/memory.py`.",
        "",
        f"| estimator | {shapes} |",
        "|---|" + "---:|" * len(SHAPES),
        *(f"| `{name}` | {' | '.join(cells)} |" for name, *cells in rows),
    ]
    return "\n".join(lines) + "\n"


def apart(name: str, n_latents: int, n_categories: int, batch_size: int) -> str:
    arguments = [name, "--shape", str(n_latents), str(n_categories), "--batch-size", str(batch_size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "–" if "ValueError" in done.stderr else "error"


if __name__ == "__main__":
    main()
