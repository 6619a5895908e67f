"""Tuning with the same budget for everyone: trials of each competitor, and final runs of what was best on validation.

A competitor is an estimator with its schedule and whatever else the grid sweeps. Trials have seeds of their own, so
that the chosen setting is not judged by the noise that chose it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from harness.config import RunConfig
from harness.search.blocks import Block, Results, Rule
from harness.search.seeds import FinalRuns, with_seed
from harness.search.space import Space, with_values

FIRST_TRIAL_SEED = 1_000_000_000
"""The seed of trial 0; that of trial i is i more. Seeds of a grid with `tune` must be smaller."""
Point = dict[str, Any]


@dataclass(frozen=True)
class Tuning:
    """The section `tune` of a grid. `with_default` adds final runs of the settings as the grid has them."""

    space: Space
    trials: int
    sampler: Literal["random", "grid"] = "random"
    with_default: bool = True

    def stated(self) -> dict[str, Any]:
        """Return the section as JSON data."""
        space = {dimension.path: dimension.stated() for dimension in self.space}
        return {"space": space, "trials": self.trials, "sampler": self.sampler}

    def competitor(self, base: RunConfig) -> str:
        """Return the name of a competitor: its label, with no more than the kind of a schedule that is searched."""
        is_searched = any(one.path.startswith("schedule.") and one.applies(base) for one in self.space)
        kind = base.schedule.kind if is_searched else base.schedule.label
        return base.label.replace(base.schedule.label, kind)

    def points(self, base: RunConfig) -> list[Point]:
        """Return the values of every trial of a competitor, by the names of the settings."""
        mine = [dimension for dimension in self.space if dimension.applies(base)]
        if self.sampler == "grid":
            combinations = product(*(dimension.choices for dimension in mine))
            found = [dict(zip((d.path for d in mine), values, strict=True)) for values in combinations]
            return [found[i % len(found)] for i in range(self.trials)]
        return [{dimension.path: dimension.drawn(trial) for dimension in mine} for trial in range(self.trials)]

    def trials_of(self, base: RunConfig) -> list[RunConfig]:
        """Return the trials of a competitor. Raises ValueError for impossible combinations of values."""
        return [
            with_values(base, point).model_copy(
                update={"trial": number, "role": "trial", "seed": FIRST_TRIAL_SEED + number, "diagnostics": None}
            )
            for number, point in enumerate(self.points(base))
        ]


@dataclass(frozen=True)
class Tuned:
    """A competitor with its trials: `base` is the run as the grid has it, with any seed."""

    base: RunConfig
    trials: tuple[RunConfig, ...] = field(repr=False)

    def best(self, results: Results) -> RunConfig | None:
        """Return the best trial, the first of equals; None if all failed."""
        scored = [(value, i) for i, run in enumerate(self.trials) if (value := results(run)) is not None]
        return self.trials[min(scored)[1]] if scored else None


def tune(tuned: Sequence[Tuned], final: FinalRuns, default_seeds: Sequence[int] = ()) -> Rule:
    """Return the rule: all trials, then the final runs of the chosen settings, and those of the defaults."""

    def blocks(results: Results) -> Iterator[Block]:
        yield Block(tuple(run for numbered in zip(*(one.trials for one in tuned), strict=True) for run in numbered))
        chosen = [(one, one.best(results)) for one in tuned]
        lines = tuple(_line(one, best, results) for one, best in chosen)
        settings = [as_final(best, one.base, "tuned") for one, best in chosen if best is not None]
        defaults = [as_final(one.base, one.base, "default") for one in tuned]
        yield from final(settings, lines)(results)
        yield Block(tuple(with_seed(run, seed) for seed in default_seeds for run in defaults))

    return blocks


def as_final(run: RunConfig, base: RunConfig, role: str) -> RunConfig:
    """Return the settings of a trial, or of the grid, as those of a final run with any seed."""
    return run.model_copy(update={"trial": None, "role": role, "seed": base.seed, "diagnostics": base.diagnostics})


def _line(one: Tuned, best: RunConfig | None, results: Results) -> str:
    failed = sum(results(run) is None for run in one.trials)
    if best is None:
        return f"{one.base.competitor}: all {failed} trials failed, so it has no tuned runs"
    return f"chosen of {len(one.trials)} trials{f' ({failed} failed)' if failed else ''}: {best.label}"


def grid_size(space: Space, base: RunConfig) -> int:
    """Return the number of combinations of the choices that apply to a run."""
    return math.prod(len(dimension.choices) for dimension in space if dimension.applies(base))
