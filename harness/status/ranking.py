"""The ranking of the settings so far, in the order of `reports.comparison`."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.events import Event, Finished
from harness.measures import Measure
from harness.status.t_interval import Mean, mean_with_interval

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.storage.sweep_state import Sweep


@dataclass(frozen=True)
class RankedSetting:
    """The results of a setting over its seeds, and its difference to the best setting of its task at the same seeds."""

    task: str
    measure: Measure
    setting: str
    n_planned: int
    n_failed: int
    n_diverged: int
    value: Mean | None  # of the finished runs
    difference: Mean | None = None  # None for the best setting, and if no seed has finished for both

    @property
    def n_bad(self) -> int:
        return self.n_failed + self.n_diverged

    @property
    def is_tried(self) -> bool:
        """Whether a run finished, failed or diverged."""
        return self.value is not None or self.n_bad > 0


def rank(sweep: "Sweep") -> list[RankedSetting]:
    """Return every setting of the grid, best mean first, one task after the other. Trials of a tuning are not ranked.

    Settings with failed or diverged runs come after all others, those without a finished run last.
    """
    by_task: dict[str, list[RunConfig]] = {}
    for run in (run for run in sweep.grid.runs if run.trial is None):
        by_task.setdefault(run.task_label, []).append(run)
    return [one for runs in by_task.values() for one in _rank_task(sweep, runs)]


def _rank_task(sweep: "Sweep", runs: "Sequence[RunConfig]") -> list[RankedSetting]:
    """Return the settings of the runs of one task, best first."""
    task, measure = runs[0].task_label, runs[0].measures[0]
    by_seed: dict[str, dict[int, float]] = {}
    statuses: dict[str, Counter[str]] = {}
    for run in runs:
        label, end = run.label, sweep.ends.get(run.key)
        values = by_seed.setdefault(label, {})
        if (value := result(end, measure)) is not None:
            values[run.seed] = value
        statuses.setdefault(label, Counter())[end.kind if end is not None else ""] += 1
    found = (_summarized(task, measure, label, by_seed[label], counts) for label, counts in statuses.items())
    ranked = sorted(found, key=_order)
    return [replace(one, difference=_difference(one, ranked[0], by_seed)) for one in ranked]


def result(end: Event | None, measure: Measure) -> float | None:
    """Return the value of a measure of a finished run, or None if it has none."""
    return end.metrics.get(measure.metric) if isinstance(end, Finished) else None


def _summarized(
    task: str, measure: Measure, label: str, by_seed: dict[int, float], statuses: Counter[str]
) -> RankedSetting:
    mean = mean_with_interval(list(by_seed.values()))
    return RankedSetting(task, measure, label, statuses.total(), statuses["failed"], statuses["diverged"], mean)


def _order(one: RankedSetting) -> tuple[bool, float, float]:
    """Return the sort key of `reports.comparison`: the share of bad runs, then the mean; no value last."""
    if one.value is None:
        return True, float(one.n_bad > 0), math.inf
    mean = one.value.mean if one.measure.better == "lower" else -one.value.mean
    return False, one.n_bad / (one.n_bad + one.value.n), mean


def _difference(one: RankedSetting, best: RankedSetting, by_seed: dict[str, dict[int, float]]) -> Mean | None:
    if one.setting == best.setting:
        return None
    mine, theirs = by_seed[one.setting], by_seed[best.setting]
    return mean_with_interval([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def decimals(ranked: Sequence[RankedSetting]) -> int:
    """Return the decimals that a ranking shows: two of nats, else for three digits, or four below 1."""
    means = [one.value.mean for one in ranked if one.value is not None]
    return decimals_of(means, ranked[0].measure)


def decimals_of(values: Iterable[float], measure: Measure) -> int:
    """Return the decimals for values of a measure."""
    largest = max(map(abs, values), default=0.0)
    if measure.unit.startswith("nats") or not 0 < largest < 10 or not math.isfinite(largest):
        return 2
    return min(9, 2 - math.floor(math.log10(largest)) + (largest < 1))


def remarks(shown: Sequence[RankedSetting], ranked: Sequence[RankedSetting]) -> list[str]:
    """Return what a reader of the settings shown should know besides their numbers."""
    lines = []
    if (rest := sum(one.is_tried for one in ranked) - len(shown)) > 0:
        lines.append(f"… and {rest} more: --json and the report list all.")
    if untried := sum(not one.is_tried for one in ranked):
        lines.append(f"Settings without a run that has ended: {untried}.")
    compared = [one.difference for one in shown if one.difference is not None]
    if any(one.low is not None and not one.excludes_zero for one in compared):
        lines.append("? These seeds cannot tell it from the best: the interval contains 0.")
    if any(one.low is None for one in compared):
        several = any(one.low is not None for one in compared)
        lines.append(f"{'Some have one' if several else 'One'} seed: no interval (–), and the order may be chance.")
    if any(one.n_bad for one in shown):
        lines.append("Settings with failed or diverged runs rank after all others.")
    return lines
