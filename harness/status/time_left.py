"""The runs under way: how far they are, and how much time they and the rest of their sweep still need."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

from harness.events import EpochDone, Finished, Record, Started
from reports.contract.stored_run import TOTAL_S

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.storage.sweep_state import Sweep


USUAL_POWER = 0.7
"""How seconds grow with a forecast, as long as one setting alone was measured."""


@dataclass(frozen=True)
class UnderWay:
    """One run that is being computed. Times are seconds until now; None where there was no epoch since the start.

    `epoch_s` is what an epoch takes, known from the second one on: the first one also pays for what is made once.
    """

    run: "RunConfig"
    epoch: int
    since_start_s: float
    since_epoch_s: float | None
    epoch_s: float | None

    @property
    def left_s(self) -> float | None:
        """The seconds until its last epoch; the final evaluation comes after that."""
        if self.epoch_s is None or self.since_epoch_s is None:
            return None
        return max(0.0, self.epoch_s * (self.run.n_epochs - self.epoch) - self.since_epoch_s)


def under_way(sweep: "Sweep", now_ms: int) -> list[UnderWay]:
    """Return the runs under way, in the order of the grid."""
    live = set(sweep.live())
    return [look_at(run, sweep.attempts[run.key].records, now_ms) for run in sweep.grid.runs if run.key in live]


def look_at(run: "RunConfig", records: Sequence[Record], now_ms: int) -> UnderWay:
    """Return how far a run is by its records, of which the first and the newest epoch since its start are enough."""
    starts = [index for index, record in enumerate(records) if isinstance(record.event, Started)]
    started, *since = records[starts[-1] if starts else 0 :]
    epochs = [record for record in since if isinstance(record.event, EpochDone)]
    done = max((record.event.epoch for record in records if isinstance(record.event, EpochDone)), default=0)
    since_start_s = (now_ms - started.time_ms) / 1e3
    if not epochs:
        return UnderWay(run, done, since_start_s, None, None)
    return UnderWay(run, done, since_start_s, (now_ms - epochs[-1].time_ms) / 1e3, _epoch_s(epochs[0], epochs[-1]))


def _epoch_s(first: Record, latest: Record) -> float | None:
    epochs = [record.event.epoch for record in (first, latest) if isinstance(record.event, EpochDone)]
    n = epochs[-1] - epochs[0]
    return (latest.time_ms - first.time_ms) / 1e3 / n if n else None


def epochs_done(sweep: "Sweep", run: "RunConfig") -> int | None:
    """Return how many epochs of a run are done; None where that is not kept: it failed or diverged."""
    if isinstance(end := sweep.ends.get(run.key), Finished):
        return run.n_epochs
    if run.key in sweep.attempts:
        return max((event.epoch for event in sweep.attempts[run.key].epochs), default=0)
    return None if end is not None else 0


def seconds_left(
    sweep: "Sweep", running: Sequence[UnderWay], waiting: Iterable["RunConfig"] | None = None
) -> float | None:
    """Return about how many seconds a driven sweep needs, if it goes on at as many runs at once as now.

    A run needs for each epoch what finished runs of its setting took, else what those under way take and what others
    took besides, else what other settings took, by their forecasts. None where there is nothing to judge by.
    """
    if not running:
        return None
    if waiting is None:
        waiting = [run for run in sweep.to_do(retry_failed=False) if sweep.status(run) not in ("running", "skipped")]
    finished = _finished_epoch_s(sweep)
    present = _present_epoch_s(running)
    if not finished and not present:
        return None
    if finished:
        others = Usual(finished, sweep.costs)
        present = {label: max(s, (s * others.epoch_s(label) ** 2) ** (1 / 3)) for label, s in present.items()}
    usual = Usual(present | finished, sweep.costs)
    left = [_left_s(one, usual.epoch_s(one.run.label)) for one in running]
    rest = sum(usual.epoch_s(run.label) * (run.n_epochs - (epochs_done(sweep, run) or 0)) for run in waiting)
    return max((sum(left) + rest) / len(running) if rest else 0.0, *left)


def _finished_epoch_s(sweep: "Sweep") -> dict[str, float]:
    """Return what the median finished run of each setting took for an epoch, its evaluation included.

    Of a run that was cut short, whose time between start and end is not all its own, the training alone counts.
    """
    taken: dict[str, list[float]] = defaultdict(list)
    for run in sweep.grid.runs:
        if isinstance(end := sweep.ends.get(run.key), Finished):
            span = sweep.spans[run.key]
            seconds = (span.last_ms - span.begun_ms) / 1e3
            if sweep.starts.get(run.key, 1) > 1:
                seconds = min(seconds, end.metrics.get(TOTAL_S, seconds))
            taken[run.label].append(seconds / run.n_epochs)
    return {label: median(values) for label, values in taken.items()}


def _present_epoch_s(running: Sequence[UnderWay]) -> dict[str, float]:
    """Return the pace of the runs under way of each setting: without the evaluation, which is still to come."""
    taken: dict[str, list[float]] = defaultdict(list)
    for one in running:
        if one.epoch_s is not None:
            taken[one.run.label].append(one.epoch_s)
    return {label: median(values) for label, values in taken.items()}


def _left_s(one: UnderWay, usual_s: float) -> float:
    """Return the seconds that a run under way needs: its epochs at its own pace, and what is usual besides."""
    if one.epoch_s is not None and one.left_s is not None:
        return one.left_s + max(0.0, usual_s - one.epoch_s) * one.run.n_epochs
    since_s = one.since_start_s if one.since_epoch_s is None else one.since_epoch_s
    return max(0.0, usual_s * (one.run.n_epochs - one.epoch) - since_s)


class Usual:
    """The seconds of an epoch of each setting: as measured, else by what its forecast is to that of the measured ones.

    Forecasts count multiply-adds, which small models pay for less than in proportion: the seconds grow with a power
    of them, which is taken from the settings that were measured.
    """

    def __init__(self, known: Mapping[str, float], costs: Mapping[str, float]) -> None:
        self._known = known
        self._costs = {label: cost for label, cost in costs.items() if cost > 0}
        points = [(log(self._costs[label]), log(s)) for label, s in known.items() if label in self._costs and s > 0]
        self._centre = tuple(sum(values) / len(points) for values in zip(*points, strict=True))
        spread = sum((x - self._centre[0]) ** 2 for x, _ in points)
        slope = sum((x - self._centre[0]) * (y - self._centre[1]) for x, y in points)
        self._power = min(max(slope / spread, 0.0), 1.0) if spread > 0.01 else USUAL_POWER

    def epoch_s(self, label: str) -> float:
        if label in self._known:
            return self._known[label]
        if label not in self._costs or not self._centre:
            return median(list(self._known.values()))
        return exp(self._centre[1] + self._power * (log(self._costs[label]) - self._centre[0]))


def median(values: Sequence[float]) -> float:
    """Return the middle value, of two the larger."""
    return sorted(values)[len(values) // 2]
