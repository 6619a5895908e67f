"""The plan and its time: a bounded number of timed updates, whatever the size of the grid."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.config import DiagnosticsConfig, RunConfig, TrainingConfig
from harness.grid.load import Grid
from harness.options import Options
from harness.status import dry_run
from harness.status.dry_run import BUDGET_S, CALIBRATED_SETTINGS, N_TIMED, Cost
from harness.storage.sweep_state import Sweep

Make = Callable[..., RunConfig]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The settings that were timed and the models whose decoder was; each update takes a second, a code a tenth."""
    seen: list[str] = []

    def update(*arguments: object) -> float:
        seen.append(f"update {arguments[2].estimator.name}")  # type: ignore[attr-defined]
        return 1.0

    def decode(*_: object) -> float:
        seen.append("decoder")
        return 0.1

    monkeypatch.setattr(dry_run, "BUDGET_S", 600.0)
    monkeypatch.setattr(dry_run, "time_update", update)
    monkeypatch.setattr(dry_run, "time_evaluation", decode)
    return seen


def calibrate(runs: list[RunConfig]) -> dict[dry_run.CostKey, Cost]:
    return dry_run.calibrate({dry_run.cost_key(run): run for run in runs}, REGISTRY)


def test_settings_that_are_timed_are_spread_over_the_grid(tiny_run: Make, timed: list[str]) -> None:
    names = [name for name in REGISTRY if name != "exact"][:30]
    costs = calibrate([tiny_run(name) for name in names])
    assert len(costs) <= CALIBRATED_SETTINGS
    assert [line for line in timed if line != "decoder"] == [f"update {name}" for name in names[::3]]


def test_the_decoder_is_timed_once_a_model(tiny_run: Make, timed: list[str]) -> None:
    calibrate([tiny_run("straight_through"), tiny_run("gumbel_softmax"), tiny_run("rloo", params={"n_samples": 4})])
    assert timed.count("decoder") == 1


def test_no_more_settings_are_timed_once_the_budget_has_gone(tiny_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "BUDGET_S", 0.0)
    assert len(calibrate([tiny_run("straight_through"), tiny_run("gumbel_softmax")])) == 1


def test_the_median_of_a_few_timings_counts() -> None:
    pauses = iter([0.2, 0.001, 0.05, 0.001, 0.2, 7.0])
    assert 0.05 <= dry_run.median_seconds(lambda: time.sleep(next(pauses)) or 0.0, time.perf_counter() + BUDGET_S) < 0.2
    assert next(pauses) == 7.0
    assert N_TIMED == 5
    calls: list[int] = []
    dry_run.median_seconds(lambda: calls.append(1) or 0.0, deadline=0.0)
    assert len(calls) == 1


def test_the_estimated_time_is_the_sum_over_all_kinds_of_runs(
    tiny_run: Make, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that cost the same are counted, not computed again; more epochs or diagnostics cost more."""
    runs = [tiny_run("straight_through", seed=seed) for seed in range(3)]
    runs += [tiny_run("straight_through", seed=9, training=TrainingConfig(epochs=20, batch_size=50))]
    runs += [tiny_run("straight_through", seed=8, diagnostics=DiagnosticsConfig(resamples=64, probe=10))]
    sweep = Sweep(Grid("g", tuple(runs), ""), Path("nowhere"), tuple(runs))
    cost = Cost(1.0, 0.1)
    each = [dry_run.run_seconds(run, cost, REGISTRY) for run in runs]
    assert each[0] == each[1] < min(each[3], each[4])
    monkeypatch.setattr(dry_run, "process_age_s", lambda: 2.0)
    monkeypatch.setattr(dry_run, "warm_up", lambda *_: 1.0)
    found = dry_run.estimate(list(sweep.selected), Options(out=Path("nowhere"), workers=1), REGISTRY)
    assert found == dry_run.Forecast(pytest.approx(sum(each) + 5.0), 5.0, 1, 5)
    assert re.fullmatch(r": about \S+ \S+ with 1 workers, including 5\.0 s to start", dry_run.forecast_text(found))
    assert dry_run.forecast_text(dry_run.estimate([], Options(out=Path("nowhere"), workers=1), REGISTRY)) == ""


def test_the_start_of_this_process_is_measured() -> None:
    before = dry_run.process_age_s()
    time.sleep(0.05)
    assert 0.04 < dry_run.process_age_s() - before < 5
