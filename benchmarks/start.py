"""Seconds until a command has answered, as a user waits for it: a new process each time, its output thrown away.

    python benchmarks/start.py --rounds 7

`harness --help`, the lists, and `harness run --dry-run` of a grid of 10,000 runs (10 estimators, 10 learning rates,
100 seeds), in turn, so that a slow moment of a shared machine hits all of them. Writes results/start.md and start.json.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

GRID = """\
name: ten-thousand
training: {lr: [1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3]}
estimators: [straight_through, st_gumbel_softmax, gumbel_softmax, reinmax, gumbel_rao, reinforce,
             {name: rloo, n_samples: 4}, rebar, softmax, gaussian_softmax]
seeds: {count: 100}
"""
PLANNED = "10000 runs, 10000 to do here: about "
TARGETS_S = {
    "--help": 0.3,
    "list estimators": 0.5,
    "list schedules": 0.5,
    "list datasets": 0.5,
    "list grids": 0.5,
    "run --dry-run, 10,000 runs": 5.0,
}


def measure(name: str, folder: Path) -> float:
    """Return the seconds of one command, which must succeed."""
    arguments = name.split()
    if name.startswith("run"):
        arguments = ["run", "--dry-run", "--grid", str(folder / "grid.yaml"), "--out", str(folder)]
    begun = time.perf_counter()
    command = [sys.executable, "-m", "harness.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = time.perf_counter() - begun
    if name.startswith("run") and not (last := done.stdout.splitlines()[-1]).startswith(PLANNED):
        raise SystemExit(f"harness {name}: expected a plan that ends in '{PLANNED}…', got '{last}'.")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in TARGETS_S}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "grid.yaml").write_text(GRID)
        measure("list estimators", folder)  # files come into the system's cache, sources are compiled
        for _ in range(options.rounds):
            for command, taken in seconds.items():
                taken.append(measure(command, folder))
    rows = [
        [f"harness {command}", f"≤ {target} s" if (target := TARGETS_S[command]) else "–", record.spread(taken)]
        for command, taken in seconds.items()
    ]
    lines = [
        f"Seconds of the whole process: median (range) over {options.rounds} interleaved rounds.",
        "",
        *record.table(["command", "target", "seconds"], rows),
    ]
    record.write("start", "Starting and planning", lines, {"seconds": seconds})


if __name__ == "__main__":
    main()
