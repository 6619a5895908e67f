"""Which setting is best so far, and whether the seeds at hand can tell: the order of `reports.comparison`."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.events import Finished
from harness.status.t_interval import Mean, mean_of
from reports.contract.stored_run import TEST_NEG_ELBO

if TYPE_CHECKING:
    from harness.storage.sweep_state import Sweep

METRIC = TEST_NEG_ELBO


@dataclass(frozen=True)
class Level:
    """What is known of a setting: of all its runs, and of its difference to the best setting at the same seeds."""

    setting: str
    n_planned: int
    n_failed: int
    n_diverged: int
    value: Mean | None  # of the finished runs
    difference: Mean | None = None  # None for the best itself, and where no seed is finished for both

    @property
    def n_bad(self) -> int:
        return self.n_failed + self.n_diverged

    @property
    def is_tried(self) -> bool:
        """Whether there is anything to say: a run finished, failed or diverged."""
        return self.value is not None or self.n_bad > 0


def rank(sweep: "Sweep") -> list[Level]:
    """Return every setting of the grid, best mean first.

    One with a failed or diverged run ranks after all without; one without a finished run after those.
    """
    by_seed: dict[str, dict[int, float]] = {}
    statuses: dict[str, Counter[str]] = {}
    for run in sweep.grid.runs:
        label, end = run.label, sweep.ends.get(run.key)
        values = by_seed.setdefault(label, {})
        if isinstance(end, Finished) and METRIC in end.metrics:
            values[run.seed] = end.metrics[METRIC]
        statuses.setdefault(label, Counter())[end.kind if end is not None else ""] += 1
    levels = sorted((_level(label, by_seed[label], found) for label, found in statuses.items()), key=_order)
    return [replace(level, difference=_difference(level, levels[0], by_seed)) for level in levels]


def _level(label: str, by_seed: dict[int, float], statuses: Counter[str]) -> Level:
    return Level(label, statuses.total(), statuses["failed"], statuses["diverged"], mean_of(list(by_seed.values())))


def _order(level: Level) -> tuple[bool, float, float]:
    """As `reports.comparison`: by the share of runs that failed or diverged, then the mean; no value last."""
    if level.value is None:
        return True, float(level.n_bad > 0), math.inf
    return False, level.n_bad / (level.n_bad + level.value.n), level.value.mean


def _difference(level: Level, best: Level, by_seed: dict[str, dict[int, float]]) -> Mean | None:
    if level.setting == best.setting:
        return None
    mine, theirs = by_seed[level.setting], by_seed[best.setting]
    return mean_of([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def notes(shown: Sequence[Level], levels: Sequence[Level]) -> list[str]:
    """Return what a reader of the first of the levels should know besides their numbers."""
    lines = []
    if (rest := sum(level.is_tried for level in levels) - len(shown)) > 0:
        lines.append(f"… and {rest} more: --json and the report have all.")
    if idle := sum(not level.is_tried for level in levels):
        lines.append(f"{idle} of the settings: no run has ended yet.")
    compared = [level.difference for level in shown if level.difference is not None]
    if any(one.low is not None and not one.excludes_zero for one in compared):
        lines.append("? these seeds cannot tell it from the best: the interval holds 0.")
    if any(one.low is None for one in compared):
        several = any(one.low is not None for one in compared)
        lines.append(f"One seed{' of some' * several}: no interval (–), and the order may be chance.")
    if any(level.n_bad for level in shown):
        lines.append("Settings with failed or diverged runs rank after all others.")
    return lines
