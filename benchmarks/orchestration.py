"""What the harness costs besides training: seconds and driver memory per run whose training does nothing.

    python benchmarks/orchestration.py [--rounds 3] [--runs 64 1000 10000] [--others PYTHON]

Each figure is of the whole pipeline by the command line: two worker processes, pipes, journal, MLflow on SQLite,
terminal. Only `harness.train.train` is replaced (noop_plugin.py): a run starts, ends one epoch and finishes. *Per run*
is the time from the start of the first run to the exit of the command, over the number of runs; *start-up* is what
comes before. The smallest real runs (100 images, pictures included) are measured in the same way. Beside them, if
PYTHON (this one by default) has them: Hydra's basic launcher and Ray tasks, doing nothing and tracking nothing. The
larger numbers of runs are measured once, everything else in every round. Writes results/orchestration.md and .json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import record
from sweeps import Timed, timed_sweep

HERE = Path(__file__).parent
NOOP = "training: {epochs: 1}\nestimators: [noop]\nseeds: {count: %d}\n"
SMALLEST = """
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
training: {epochs: 1, batch_size: 50}
evaluation: {bound_samples: 2, n_images: 2}
estimators: [straight_through]
seeds: {count: %d}
"""
WORKERS = 2
SETTLED = 500
"""Growth of memory per run is stated from so many runs on: in fewer, MLflow is still loading itself."""


def per_run_s(sweep: Timed) -> float:
    return (sweep.wall_s - sweep.startup_s) / len(sweep.starts_s)


def noop(n_runs: int) -> Timed:
    return timed_sweep(NOOP % n_runs, WORKERS, [HERE / "noop_plugin.py"])


def other(python: str, name: str, n_runs: int) -> dict[str, float] | None:
    """Return seconds of start-up and per job, or None if it is not installed there."""
    command = [python, str(HERE / "orchestration_others.py"), name, str(n_runs), str(WORKERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def measure(rounds: int, sizes: Sequence[int], python: str) -> tuple[dict[str, list[Timed]], dict[str, list[dict]]]:
    """Return the sweeps and what the others took, by name, a value a round."""
    ours: dict[str, list[Timed]] = defaultdict(list)
    theirs: dict[str, list[dict]] = defaultdict(list)
    small, *large = sorted(sizes)
    for _ in range(rounds):
        ours[f"no-op × {small}"].append(noop(small))
        ours[f"smallest real × {small}"].append(timed_sweep(SMALLEST % small, WORKERS))
        for name in ("hydra", "ray"):
            if (found := other(python, name, small)) is not None:
                theirs[name].append(found)
    for size in large:
        ours[f"no-op × {size}"].append(noop(size))
    return ours, theirs


def rows(ours: dict[str, list[Timed]], theirs: dict[str, list[dict]], small: int) -> list[list[str]]:
    found = []
    for name, sweeps in ours.items():
        inside = statistics.fmean(statistics.fmean(sweep.run_s) for sweep in sweeps)
        figures = [[per_run_s(s) for s in sweeps], [s.startup_s for s in sweeps], [s.wall_s for s in sweeps]]
        texts = [record.spread(values, form) for values, form in zip(figures, (".3f", ".1f", ".1f"), strict=True)]
        memory = [
            record.spread([s.peak_mb for s in sweeps], ".0f"),
            record.spread([s.growth_kb for s in sweeps], ".0f") if len(sweeps[0].starts_s) >= SETTLED else "–",
            paces(sweeps[-1]) if len(sweeps[0].starts_s) >= SETTLED else "–",
        ]
        found.append([name, *texts, f"{inside:.3f}", *memory])
    for name, results in theirs.items():
        texts = [record.spread([result[key] for result in results], ".3f") for key in ("per_run_s", "startup_s")]
        found.append([f"{name} × {small}, nothing tracked", *texts, *"–––––"])
    return found


def paces(sweep: Timed) -> str:
    return ", ".join(f"{sweep.pace_s(tenth):.3f}" for tenth in (1, 2, 6, 10))


def further_run_s(ours: dict[str, list[Timed]]) -> float:
    """Return what each further no-op run takes, from the smallest to the largest sweep; nan if there is but one."""
    sweeps = [s[0] for name, s in ours.items() if name.startswith("no-op")]
    few, many = min(sweeps, key=lambda s: len(s.starts_s)), max(sweeps, key=lambda s: len(s.starts_s))
    more = len(many.starts_s) - len(few.starts_s)
    return (many.wall_s - few.wall_s) / more if more else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, nargs="+", default=[64, 1000, 10_000])
    parser.add_argument("--others", default=sys.executable, help="a Python that has hydra-core, ray or both")
    given = parser.parse_args()
    ours, theirs = measure(given.rounds, given.runs, given.others)
    further_s = further_run_s(ours)
    headings = [
        "sweep",
        "s per run",
        "start-up, s",
        "wall, s",
        "s inside a run",
        "driver, MB",
        "kB per run",
        "s a run, by tenths",
    ]
    lines = [
        *record.table(headings, rows(ours, theirs, min(given.runs))),
        "",
        f"Two workers; median (least – greatest) of {given.rounds} rounds, one round of the larger sweeps."
        f" Each further no-op run: {further_s:.3f} s. Memory of the driver until the last run ends: its peak, and its"
        " growth after the first tenth of the runs. By tenths: seconds a run in the first, second, sixth and last.",
    ]
    figures = {
        "per_run_s": {name: [per_run_s(s) for s in sweeps] for name, sweeps in ours.items()},
        "wall_s": {name: [s.wall_s for s in sweeps] for name, sweeps in ours.items()},
        "startup_s": {name: [s.startup_s for s in sweeps] for name, sweeps in ours.items()},
        "peak_mb": {name: [s.peak_mb for s in sweeps] for name, sweeps in ours.items()},
        "further_run_s": further_s,
        "growth_kb_per_run": {name: [s.growth_kb for s in sweeps] for name, sweeps in ours.items()},
        "pace_s_by_tenths": {
            name: [[s.pace_s(tenth) for tenth in range(1, 11)] for s in sweeps] for name, sweeps in ours.items()
        },
        "others": theirs,
    }
    record.write("orchestration", "Orchestration per run", lines, figures)


if __name__ == "__main__":
    main()
