"""How much longer a sweep of 16 runs takes than its runs: `python benchmarks/sweep.py [--rounds 1] [--epochs 2]`.

Four estimators × four seeds at the seed recipe (784–512–256–20×10, batch 128) on MNIST, or on mnist-mini with ten times
the epochs where MNIST is absent; two workers of one thread, MLflow on SQLite. The wall clock is that of the whole
command, from the start of Python to its exit. Two ratios, both against seconds / workers:

    runs        from `started` to `finished`: data, training, validation, test, pictures. What a bare loop over
                `harness.train.train` would take; what is above 1 is orchestration
    training    only `time/total_s`, the epochs without any evaluation: depends on how much the grid evaluates

The table says where the worker-seconds (wall × workers) went. Writes results/sweep.md and .json.
"""

import argparse
from pathlib import Path

import record
from sweeps import Timed, timed_sweep

from harness.datasets.files import default_data_dir

WORKERS = 2
GRID = """
data: {name: %s}
training: {epochs: %d, batch_size: 128}
evaluation: {bound_samples: 0, validation_every: %d}
estimators: [straight_through, gumbel_softmax, reinmax, {name: rloo, n_samples: 2}]
seeds: [0, 1, 2, 3]
"""


def parts(sweep: Timed) -> dict[str, float]:
    """Return worker-seconds by what they went into; they add up to wall × workers."""
    first, last = sorted(sweep.starts_s)[:WORKERS], sorted(sweep.ends_s)[-WORKERS:]
    training, inside = sum(sweep.training_s), sum(sweep.run_s)
    known = {
        "training": training,
        "data, validation, test, pictures": inside - training,
        "start-up: imports, a new MLflow database, workers": sum(first),
        "one worker idle while the other ends its last run": WORKERS * last[-1] - sum(last),
        "after the last run: rest of the store, summary, exit": WORKERS * (sweep.wall_s - last[-1]),
    }
    return known | {"between two runs of a worker": WORKERS * sweep.wall_s - sum(known.values())}


def ratio(sweep: Timed, seconds: list[float]) -> float:
    return sweep.wall_s / (sum(seconds) / WORKERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    data, epochs = (
        ("mnist", given.epochs) if Path(default_data_dir(), "mnist").exists() else ("mnist-mini", 10 * given.epochs)
    )
    sweeps = [timed_sweep(GRID % (data, epochs, epochs), WORKERS) for _ in range(given.rounds)]
    of_runs = [ratio(sweep, sweep.run_s) for sweep in sweeps]
    of_training = [ratio(sweep, sweep.training_s) for sweep in sweeps]
    where = [parts(sweep) for sweep in sweeps]
    shares = {name: [100 * each[name] / sum(each.values()) for each in where] for name in where[0]}
    lines = [
        f"16 runs on {data}, {epochs} epochs; {WORKERS} workers of one thread; {given.rounds} round(s).",
        "",
        *record.table(
            ["", "median (least – greatest)"],
            [
                ["wall clock, s", record.spread([sweep.wall_s for sweep in sweeps], ".1f")],
                ["wall / (seconds of the runs / workers)", record.spread(of_runs, ".3f")],
                ["wall / (seconds of training / workers)", record.spread(of_training, ".3f")],
                ["driver memory, MB", record.spread([sweep.peak_mb for sweep in sweeps], ".0f")],
            ],
        ),
        "",
        *record.table(
            ["where the worker-seconds go", "s", "%"],
            [
                [name, record.spread([each[name] for each in where], ".1f"), record.spread(values, ".1f")]
                for name, values in shares.items()
            ],
        ),
    ]
    figures = {
        "wall_s": [sweep.wall_s for sweep in sweeps],
        "ratio_runs": of_runs,
        "ratio_training": of_training,
        "worker_seconds": where,
    }
    record.write("sweep", "A sweep of 16 runs beside its runs alone", lines, figures)


if __name__ == "__main__":
    main()
