"""The runs under way: how far they are, and how much time they and the rest of their sweep still need."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.events import EpochDone, Finished, Record, Started

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.sweep import Sweep


@dataclass(frozen=True)
class UnderWay:
    """One run that is being computed. Times are seconds until now; None where there was no epoch since the start."""

    run: "RunConfig"
    epoch: int
    since_start_s: float
    since_epoch_s: float | None
    epoch_s: float | None  # what an epoch takes

    @property
    def left_s(self) -> float | None:
        """The seconds until its last epoch; the final evaluation comes after that."""
        if self.epoch_s is None or self.since_epoch_s is None:
            return None
        return max(0.0, self.epoch_s * (self.run.n_epochs - self.epoch) - self.since_epoch_s)


def under_way(sweep: "Sweep", now_ms: int) -> list[UnderWay]:
    """Return the runs under way, in the order of the grid."""
    live = set(sweep.live())
    return [_under_way(run, sweep.attempts[run.key].records, now_ms) for run in sweep.grid.runs if run.key in live]


def _under_way(run: "RunConfig", records: Sequence[Record], now_ms: int) -> UnderWay:
    starts = [index for index, record in enumerate(records) if isinstance(record.event, Started)]
    started, *since = records[starts[-1] if starts else 0 :]
    epochs = [record for record in since if isinstance(record.event, EpochDone)]
    done = max((record.event.epoch for record in records if isinstance(record.event, EpochDone)), default=0)
    since_start_s = (now_ms - started.time_ms) / 1e3
    if not epochs:
        return UnderWay(run, done, since_start_s, None, None)
    since_epoch_s = (now_ms - epochs[-1].time_ms) / 1e3
    return UnderWay(run, done, since_start_s, since_epoch_s, epoch_s(started, epochs[0], epochs[-1]))


def epoch_s(started: Record, first: Record, latest: Record) -> float:
    """Return the seconds an epoch takes: between the first and the latest since the start, which may be one."""
    epochs = [record.event.epoch for record in (first, latest) if isinstance(record.event, EpochDone)]
    n = epochs[-1] - epochs[0]
    return (latest.time_ms - first.time_ms) / 1e3 / n if n else (first.time_ms - started.time_ms) / 1e3


def epochs_done(sweep: "Sweep", run: "RunConfig") -> int | None:
    """Return how many epochs of a run are done; None where that is not kept: it failed or diverged."""
    if isinstance(end := sweep.ends.get(run.key), Finished):
        return run.n_epochs
    if run.key in sweep.attempts:
        return max((event.epoch for event in sweep.attempts[run.key].epochs), default=0)
    return None if end is not None else 0


def seconds_left(sweep: "Sweep", running: Sequence[UnderWay]) -> float | None:
    """Return the seconds until a driven sweep is through, if it goes on at as many runs at once as now.

    A run that waits takes what the median finished run of its setting took for each epoch, else that of the sweep, else
    that of the runs under way. None where there is nothing to judge by.
    """
    taken: dict[str, list[float]] = defaultdict(list)
    for run in sweep.grid.runs:
        if isinstance(sweep.ends.get(run.key), Finished):
            span = sweep.spans[run.key]
            taken[run.label].append((span.last_ms - span.begun_ms) / 1e3 / run.n_epochs)
    known = [one for values in taken.values() for one in values] or [one.epoch_s for one in running if one.epoch_s]
    if not known or not running:
        return None
    usual = {label: median(values) for label, values in taken.items()}
    default = median(known)
    waiting = [run for run in sweep.to_do(retry_failed=False) if sweep.status(run) not in ("running", "skipped")]
    left = [one.left_s if one.left_s is not None else _rest(sweep, one.run, usual, default) for one in running]
    rest = sum(_rest(sweep, run, usual, default) for run in waiting)
    return max((sum(left) + rest) / len(running), *left)


def _rest(sweep: "Sweep", run: "RunConfig", usual: dict[str, float], default: float) -> float:
    return usual.get(run.label, default) * (run.n_epochs - (epochs_done(sweep, run) or 0))


def median(values: Sequence[float]) -> float:
    """Return the middle value, of two the larger."""
    return sorted(values)[len(values) // 2]
