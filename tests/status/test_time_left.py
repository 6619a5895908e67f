"""The estimate of the remaining time, on a clock of the test's own, against what the sweep then takes."""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from harness.config import RunConfig
from harness.events import EpochDone, Event, Finished, Interrupted, Record, Started
from harness.grid.load import Grid
from harness.status.time_left import EpochSeconds, runs_in_progress, seconds_left
from harness.storage.plan_file import PlannedRun, Setting
from harness.storage.sweep_state import Sweep

START = Started(
    {"source_sha256": "a", "git_commit": "c", "git_dirty": False, "packages": {"torch": "2", "argmax-harness": "1"}}
)
Timed = tuple[float, str, Event]
SETTINGS = {  # forecast of an epoch, its seconds, epochs, seconds besides: start, first epoch, final evaluation
    "straight_through": (1.0, 2.0, 6, 5.0),
    "gumbel_softmax": (1.0, 2.2, 6, 5.0),
    "rloo(n_samples=4)": (2.5, 4.6, 6, 6.0),
    "disarm": (1.5, 2.9, 12, 6.0),
    "exact": (20.0, 26.0, 6, 12.0),
}


def sweep_of(settings: dict[str, tuple[float, float, int, float]], n_seeds: int, *, forecast: bool = True) -> Sweep:
    made = {label: Setting(label, {"training.epochs": epochs}) for label, (_, _, epochs, _) in settings.items()}
    runs = [PlannedRun(f"{label} {seed}", made[label], seed) for seed in range(n_seeds) for label in settings]
    known = cast(tuple[RunConfig, ...], tuple(runs))
    sweep = Sweep(Grid("g", known, ""), Path("g"), known)
    sweep.epoch_costs = {label: cost for label, (cost, *_) in settings.items()} if forecast else {}
    return sweep


def history(sweep: Sweep, settings: dict[str, tuple[float, float, int, float]], workers: int) -> Iterator[Timed]:
    """What the runs would tell, the longest forecast first; times are seconds since the start."""
    cost = {run.key: settings[run.label][0] * run.n_epochs for run in sweep.grid.runs}
    ordered = sorted(sweep.grid.runs, key=lambda run: -cost[run.key])
    free, events = [3.0] * workers, list[Timed]()
    for run in ordered:
        begun = heapq.heappop(free)
        _, epoch_s, n_epochs, besides_s = settings[run.label]
        events.append((begun, run.key, START))
        ends = [begun + besides_s / 2 + epoch_s * n for n in range(1, n_epochs + 1)]
        events += [(end, run.key, EpochDone(n, n, 0.0, {})) for n, end in enumerate(ends, 1)]
        heapq.heappush(free, ends[-1] + besides_s / 2)
        total = {"test/neg_elbo": 1.0, "time/total_s": epoch_s * n_epochs}
        events.append((ends[-1] + besides_s / 2, run.key, Finished(n_epochs, total)))
    yield from sorted(events, key=lambda event: event[0])


def estimates(sweep: Sweep, events: list[Timed]) -> Iterator[tuple[int, float, float | None]]:
    """Yield after each event, while runs go on: runs finished, seconds that are left in truth, the estimate."""
    last = events[-1][0]
    for index, (second, key, event) in enumerate(events):
        sweep.add(Record(key, int(second * 1000), event))
        if index + 1 < len(events) and events[index + 1][0] == second:
            continue  # the next run starts at once
        found = seconds_left(sweep, runs_in_progress(sweep, int(second * 1000)))
        yield sweep.counts()["finished"], last - second, found


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("left_out", ["", "exact", "rloo(n_samples=4)"])
def test_the_estimate_is_within_half_once_runs_have_finished(workers: int, left_out: str) -> None:
    settings = {label: facts for label, facts in SETTINGS.items() if label != left_out}
    sweep = sweep_of(settings, 4)
    ratios = [
        found / left
        for n_finished, left, found in estimates(sweep, list(history(sweep, settings, workers)))
        if n_finished and left > 10 and found is not None
    ]
    assert len(ratios) > 20
    assert 1 / 1.5 < min(ratios) <= max(ratios) < 1.5


def test_no_estimate_is_given_before_there_is_evidence() -> None:
    sweep = sweep_of(SETTINGS, 2)
    events = list(history(sweep, SETTINGS, 2))
    second = next(second for second, _, event in events if isinstance(event, EpochDone) and event.epoch == 2)
    found = [(events[-1][0] - left, estimate) for _, left, estimate in estimates(sweep, events)]
    before = [estimate for now, estimate in found if now < second - 1e-6]
    assert before == [None] * len(before)
    assert len(before) >= 2
    assert all(estimate is not None for now, estimate in found if second <= now < events[-1][0] - 1e-6)


def test_the_start_of_the_workers_and_the_first_epoch_are_not_multiplied() -> None:
    """Nine seconds of start made 29 minutes of what took six."""
    settings = {"one": (1.0, 1.8, 200, 9.0)}
    sweep = sweep_of(settings, 1)
    for n_finished, left, found in estimates(sweep, list(history(sweep, settings, 1))):
        assert n_finished or found is None or left - 6 < found < 1.1 * left


def test_the_pause_of_an_interrupted_run_does_not_count() -> None:
    settings = {"one": (1.0, 2.0, 10, 0.0)}
    sweep = sweep_of(settings, 2)
    start = START
    key, other = (run.key for run in sweep.grid.runs)
    for second, event in (
        (0, start), (10, EpochDone(5, 5, 10.0, {})), (11, Interrupted("killed")), (90_000, start),
        (90_010, EpochDone(10, 10, 20.0, {})), (90_011, Finished(10, {"test/neg_elbo": 1.0, "time/total_s": 20.0})),
    ):  # fmt: skip
        sweep.add(Record(key, second * 1000, event))
    assert sweep.starts[key] == 2
    sweep.add(Record(other, 90_012_000, start))
    assert seconds_left(sweep, runs_in_progress(sweep, 90_012_000)) == pytest.approx(20.0)


def test_a_setting_that_was_not_measured_is_judged_by_its_forecast() -> None:
    costs = {"small": 1.0, "middle": 4.0, "large": 16.0}
    assert EpochSeconds({"small": 1.0, "large": 4.0}, costs).epoch_s("middle") == pytest.approx(
        2.0
    )  # as the root of the cost
    assert EpochSeconds({"small": 1.0, "large": 256.0}, costs).epoch_s("middle") == pytest.approx(
        16.0
    )  # as the cost, no faster
    assert EpochSeconds({"small": 3.0, "large": 1.0}, costs).epoch_s("middle") == pytest.approx(3**0.5)
    assert EpochSeconds({"middle": 2.0}, costs).epoch_s("small") == pytest.approx(2 / 4**0.7)
    assert EpochSeconds({"small": 1.0, "large": 3.0}, {}).epoch_s("middle") == 3.0
    assert EpochSeconds({"small": 1.0}, costs).epoch_s("small") == 1.0
