"""The progress of the runs, and an estimate of the time that they and the rest of their sweep still need."""

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


DEFAULT_POWER = 0.7
"""The power of the forecast that seconds grow with, as long as only one setting was measured."""


@dataclass(frozen=True)
class RunProgress:
    """The progress of one running run. Times are seconds until now, or None before the first epoch since the start.

    `epoch_s` is the time of an epoch, known from the second one on, since the first one includes the setup.
    """

    run: "RunConfig"
    epoch: int
    since_start_s: float
    since_epoch_s: float | None
    epoch_s: float | None

    @property
    def left_s(self) -> float | None:
        """The seconds until the end of its last epoch, without the final evaluation."""
        if self.epoch_s is None or self.since_epoch_s is None:
            return None
        return max(0.0, self.epoch_s * (self.run.n_epochs - self.epoch) - self.since_epoch_s)


def runs_in_progress(sweep: "Sweep", now_ms: int) -> list[RunProgress]:
    """Return the runs in progress, in the order of the grid."""
    live = set(sweep.active_keys())
    return [run_progress(run, sweep.attempts[run.key].records, now_ms) for run in sweep.grid.runs if run.key in live]


def run_progress(run: "RunConfig", records: Sequence[Record], now_ms: int) -> RunProgress:
    """Return the progress of a run. Its start, and its first and latest epoch since then, are enough as records."""
    starts = [index for index, record in enumerate(records) if isinstance(record.event, Started)]
    started, *since = records[starts[-1] if starts else 0 :]
    epochs = [(record.event.epoch, record.time_ms) for record in since if isinstance(record.event, EpochDone)]
    done = max((record.event.epoch for record in records if isinstance(record.event, EpochDone)), default=0)
    since_start_s = (now_ms - started.time_ms) / 1e3
    if not epochs:
        return RunProgress(run, done, since_start_s, None, None)
    (first, first_ms), (latest, latest_ms) = epochs[0], epochs[-1]
    epoch_s = (latest_ms - first_ms) / 1e3 / (latest - first) if latest != first else None
    return RunProgress(run, done, since_start_s, (now_ms - latest_ms) / 1e3, epoch_s)


def epochs_done(sweep: "Sweep", run: "RunConfig") -> int | None:
    """Return how many epochs of a run are done, or None for failed, diverged and skipped runs."""
    if isinstance(end := sweep.ends.get(run.key), Finished):
        return run.n_epochs
    if run.key in sweep.attempts:
        return max((event.epoch for event in sweep.attempts[run.key].epochs), default=0)
    return None if end is not None else 0


def seconds_left(
    sweep: "Sweep", running: Sequence[RunProgress], waiting: Iterable["RunConfig"] | None = None
) -> float | None:
    """Return about how many more seconds a driven sweep needs if it keeps its number of concurrent runs.

    The time of an epoch is that of finished runs of the same setting, else that of its runs in progress corrected by
    other settings, else that of other settings in proportion to the forecasts. None if nothing was measured yet.
    """
    if not running:
        return None
    if waiting is None:
        waiting = [run for run in sweep.to_do(retry_failed=False) if sweep.status(run) not in ("running", "skipped")]
    finished = _finished_epoch_s(sweep)
    current = _current_epoch_s(running)
    if not finished and not current:
        return None
    if finished:
        others = EpochSeconds(finished, sweep.epoch_costs)
        current = {label: max(s, (s * others.epoch_s(label) ** 2) ** (1 / 3)) for label, s in current.items()}
    expected = EpochSeconds(current | finished, sweep.epoch_costs)
    left = [_left_s(one, expected.epoch_s(one.run.label)) for one in running]
    rest = sum(expected.epoch_s(run.label) * (run.n_epochs - (epochs_done(sweep, run) or 0)) for run in waiting)
    return max((sum(left) + rest) / len(running) if rest else 0.0, *left)


def _finished_epoch_s(sweep: "Sweep") -> dict[str, float]:
    """Return the median time of an epoch of each setting's finished runs, including the evaluation.

    For a run that was interrupted, only the training counts: it did not run all the time between its start and end.
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


def _current_epoch_s(running: Sequence[RunProgress]) -> dict[str, float]:
    """Return the median time of an epoch of each setting's runs in progress, without the final evaluation."""
    taken: dict[str, list[float]] = defaultdict(list)
    for one in running:
        if one.epoch_s is not None:
            taken[one.run.label].append(one.epoch_s)
    return {label: median(values) for label, values in taken.items()}


def _left_s(one: RunProgress, expected_s: float) -> float:
    """Return the seconds that a run still needs: its epochs at its own speed, and the expected time for the rest."""
    if one.epoch_s is not None and one.left_s is not None:
        return one.left_s + max(0.0, expected_s - one.epoch_s) * one.run.n_epochs
    since_s = one.since_start_s if one.since_epoch_s is None else one.since_epoch_s
    return max(0.0, expected_s * (one.run.n_epochs - one.epoch) - since_s)


class EpochSeconds:
    """The seconds of an epoch of each setting: as measured, else predicted from its forecast.

    Forecasts count multiply-adds. Seconds grow with a power of them, which is fitted to the measured settings.
    """

    def __init__(self, measured: Mapping[str, float], costs: Mapping[str, float]) -> None:
        self._measured = measured
        self._costs = {label: cost for label, cost in costs.items() if cost > 0}
        points = [(log(self._costs[label]), log(s)) for label, s in measured.items() if label in self._costs and s > 0]
        self._centre = tuple(sum(values) / len(points) for values in zip(*points, strict=True))
        spread = sum((x - self._centre[0]) ** 2 for x, _ in points)
        slope = sum((x - self._centre[0]) * (y - self._centre[1]) for x, y in points)
        self._power = min(max(slope / spread, 0.0), 1.0) if spread > 0.01 else DEFAULT_POWER

    def epoch_s(self, label: str) -> float:
        if label in self._measured:
            return self._measured[label]
        if label not in self._costs or not self._centre:
            return median(list(self._measured.values()))
        return exp(self._centre[1] + self._power * (log(self._costs[label]) - self._centre[0]))


def median(values: Sequence[float]) -> float:
    """Return the middle value, the larger one of two."""
    return sorted(values)[len(values) // 2]
