"""What each estimator costs: the time of a training step over that of `straight_through`, evaluations, peak memory.

    python benchmarks/costs.py --rounds 7 --steps 8     # about seven minutes on a quiet machine: times two, memory five

The seed recipe (20 latents × 10 classes, batch 128), one thread. Every round times each estimator once, in turn; ratios
are taken within a round. Peak memory is measured as in benchmarks/memory.py, a process for each estimator.
"""

import argparse
from typing import Any

import record
import torch
from loops import SHAPES, harness_loop
from memory import apart

from estimators import REGISTRY, build
from estimators.declarations import example

MORE = (
    ("gumbel_rao", {"n_draws": 100}),
    ("reinmax_rao", {"n_draws": 100}),
    ("rloo", {"n_samples": 16}),
    ("redge", {"n_steps": 9}),
)
"""Settings besides the defaults."""


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Return every estimator that can work with the shape, in its default setting, and MORE."""
    defaults = [(name, dict(cls.examples)) for name, cls in REGISTRY.items() if _accepts(name)]
    return [*defaults, *MORE]


def _accepts(name: str) -> bool:
    try:
        example(REGISTRY[name]).check_shape(*SHAPES[0])
    except ValueError:
        return False
    return True


def label(name: str, params: dict[str, Any]) -> str:
    return f"`{name}`" + "".join(f" {key}={value}" for key, value in params.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loops = {
        label(name, params): harness_loop(options.steps, SHAPES[0], estimator=name, params=params)
        for name, params in cases()
    }
    times = record.interleaved(loops, options.rounds, options.steps)
    rows, figures = [], {}
    for name, params in cases():
        key = label(name, params)
        ratio = record.ratios(times[key], times["`straight_through`"])
        evaluations = build(name, **params).n_cost_evals(*SHAPES[0])
        memory = "–" if options.no_memory or params != REGISTRY[name].examples else apart(name, *SHAPES[0], 128)
        figures[key] = {
            "ms": [1e3 * each for each in times[key]],
            "ratio": ratio,
            "evaluations": evaluations,
            "peak_mb": memory,
        }
        rows.append([key, record.spread(ratio), str(evaluations), memory])
    rows.sort(key=lambda row: float(row[1].split()[0]))
    lines = [
        "Seed recipe (20 latents × 10 classes, batch 128), one thread, default settings unless given;"
        f" {options.rounds} interleaved rounds of {options.steps} steps; median (range). Memory: megabytes of a step"
        " above what the process had before.",
        "",
        *record.table(("estimator", "step over `straight_through`", "decoder evaluations", "peak memory, MB"), rows),
    ]
    record.write("costs", "What each estimator costs", lines, {"estimators": figures})


if __name__ == "__main__":
    main()
