"""How the time of a training step grows: with latents, classes, batch, width and samples, as log-log slopes.

    python benchmarks/scaling.py --rounds 5        # about two minutes

One thread. One quantity doubles along a series while the others stay at the seed recipe. A slope of 1 is proportional
growth, 0 is none; it is fitted to the medians by least squares. All sizes of a series are timed in turn in every round.
"""

import argparse
import math
import statistics
from typing import Any

import record
import torch
from loops import harness_loop

STEPS = 5
SERIES: dict[str, tuple[tuple[int, ...], Any]] = {
    "latents (K = 10)": ((5, 10, 20, 40, 80), lambda n: {"shape": (n, 10)}),
    "classes (L = 20)": ((5, 10, 20, 40, 80), lambda n: {"shape": (20, n)}),
    "batch": ((32, 64, 128, 256, 512), lambda n: {"shape": (20, 10), "batch": n}),
    "width of the first hidden layer": ((128, 256, 512, 1024), lambda n: {"shape": (20, 10), "hidden": (n, n // 2)}),
    "`rloo` n_samples": ((2, 4, 8, 16, 32), lambda n: {**RLOO, "params": {"n_samples": n}}),
    "`gumbel_rao` n_draws": ((5, 10, 20, 40, 80, 160), lambda n: {**RAO, "params": {"n_draws": n}}),
}
RLOO, RAO = ({"shape": (20, 10), "estimator": name} for name in ("rloo", "gumbel_rao"))


def slope(sizes: tuple[int, ...], values: list[float]) -> float:
    """Return the least-squares slope of log value against log size."""
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(v) for v in values]).slope


def series(name: str, rounds: int) -> list[list[float]]:
    """Return milliseconds a step at every size, a value for each round."""
    sizes, settings = SERIES[name]
    loops = {str(n): harness_loop(STEPS, **settings(n)) for n in sizes}
    return [[1e3 * each for each in values] for values in record.interleaved(loops, rounds, STEPS).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, figures = [], {}
    for name, (sizes, _) in SERIES.items():
        times = series(name, options.rounds)
        medians = [statistics.median(each) for each in times]
        upper = slope(sizes[-3:], medians[-3:])
        shown = " ".join(f"{n}: {ms:.1f}" for n, ms in zip(sizes, medians, strict=True))
        rows.append([name, shown, f"{slope(sizes, medians):.2f}", f"{upper:.2f}"])
        figures[name] = {
            "sizes": sizes,
            "ms": times,
            "slope": slope(sizes, medians),
            "slope_of_the_largest_three": upper,
        }
        print(f"{name}: done", flush=True)
    lines = [
        "`gumbel_softmax`, 20 latents × 10 classes, 784–512–256, batch 128, one thread, unless the row says otherwise;"
        f" medians of {options.rounds} interleaved rounds of {STEPS} steps.",
        "",
        *record.table(("", "size: ms a step", "slope", "slope of the largest three"), rows),
    ]
    record.write("scaling", "How the time of a step grows", lines, figures)


if __name__ == "__main__":
    main()
