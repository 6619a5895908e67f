"""Seconds until `harness status` has answered for a large sweep, as a user waits for it: a new process each time.

    python benchmarks/status.py [--runs 10000] [--epochs 10] [--rounds 5]

The journal is made by the code that makes every journal, with the metrics of a real run, and the grid is frozen beside
it as `harness run` does it. In each round the same question is asked twice: with the frozen grid, and without it, when
the grid has to be built, which is also what a changed version of the harness does. Writes results/status.md and .json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

from estimators import REGISTRY
from harness.events import EpochDone, Finished, Record, Started
from harness.grid.load import Grid, load_grid
from harness.provenance import provenance
from harness.storage import plan
from harness.storage.journal import Journal

GRID = """\
name: large
estimators: [straight_through, st_gumbel_softmax, gumbel_softmax, reinmax, gumbel_rao, reinforce,
             {name: rloo, n_samples: 4}, rebar, softmax, gaussian_softmax]
seeds: {count: %d}
"""
N_ESTIMATORS = 10
EPOCH = ("train/loss", "train/bce", "train/kl", "val/loss", "val/bce", "val/kl", "tau", "time/epoch_s", "time/step_s")
FINAL = ("test/neg_elbo", "test/relaxed_loss", "test/neg_bound", "time/total_s", "memory/peak_mb")


def fill(journal: Journal, grid: Grid, n_epochs: int) -> None:
    """Write the records of a sweep that has finished every run."""
    facts = provenance()
    for run in grid.runs:
        journal.append(Record.now(run.key, Started(facts)))
        for epoch in range(1, n_epochs + 1):
            journal.append(Record.now(run.key, EpochDone(epoch, epoch * 429, 1.5, dict.fromkeys(EPOCH, 123.456789))))
        journal.append(Record.now(run.key, Finished(n_epochs * 429, dict.fromkeys(FINAL, 123.456789))))


def ask(path: Path, out: Path, n_runs: int) -> float:
    """Return the seconds of `harness status`, which must know every run as finished."""
    command = [sys.executable, "-m", "harness.cli", "status", "--grid", str(path), "--out", str(out)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    taken = time.perf_counter() - begun
    if f"{n_runs} finished" not in done.stdout:
        raise SystemExit(f"harness status: expected '{n_runs} finished', got:\n{done.stdout}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {"with the frozen grid": [], "building the grid": []}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        path = Path(name, "grid.yaml")
        path.write_text(GRID % (given.runs // N_ESTIMATORS))
        grid, folder = load_grid(path, REGISTRY), Path(name, "large")
        folder.mkdir()
        with Journal(folder) as journal:
            fill(journal, grid, given.epochs)
        plan.save_plan(folder, grid, plan.plan_fingerprint())
        content = (folder / "frozen.json").read_bytes()
        size_mb = journal.path.stat().st_size / 1e6
        for _ in range(given.rounds):
            (folder / "frozen.json").write_bytes(content)
            seconds["with the frozen grid"].append(ask(path, Path(name), len(grid.runs)))
            (folder / "frozen.json").unlink()
            seconds["building the grid"].append(ask(path, Path(name), len(grid.runs)))
    lines = [
        f"`harness status` of {len(grid.runs)} runs of {given.epochs} epochs, {size_mb:.0f} MB of journal: seconds of"
        f" the whole process, median (range) over {given.rounds} interleaved rounds.",
        "",
        *record.table(["", "seconds"], [[name, record.spread(taken)] for name, taken in seconds.items()]),
    ]
    record.write("status", "Asking for the state of a sweep", lines, {"seconds": seconds, "journal_mb": size_mb})


if __name__ == "__main__":
    main()
