"""The t of mve: set by a growing schedule in runs, a parameter without one, and wrong grids in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness import train
from harness.config import RunConfig
from harness.events import EpochDone
from harness.grid.errors import GridError
from harness.grid.load import load_grid
from harness.schedules import Growing
from reports.contract.stored_run import EPOCH_METRICS

GRID = "seeds: [0]\nschedules:\n  - {kind: constant}\n  - {kind: growing, final: [1e3, 1e6]}\n"


def test_a_run_ends_at_the_final_t(tiny_run: Callable[..., RunConfig]) -> None:
    run = tiny_run("mve", schedule=Growing(initial=2.0, final=50.0, unit="epoch"))
    metrics = [event.metrics for event in train.train(run, REGISTRY) if isinstance(event, EpochDone)]
    assert (metrics[0]["t"], metrics[-1]["t"]) == (2.0, 50.0)
    assert all("tau" not in each for each in metrics)
    assert "t" in EPOCH_METRICS


def test_mve_gets_the_growing_schedules_and_others_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("estimators: [mve, reinmax]\n" + GRID)
    grid = load_grid(path, REGISTRY)
    assert [run.label for run in grid.runs] == [
        "mve · growing(1→1000)",
        "mve · growing(1→1000000.0)",
        "reinmax · constant(1)",
    ]
    assert "mve has t: 2 schedules instead of 3" in grid.notes
    assert grid.runs[0].build_estimator(REGISTRY).extra_repr() == "t=1.0, n_samples=1"


def test_without_a_schedule_of_its_own_t_is_a_parameter(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("estimators: [{name: mve, t: [0, 1e3]}]\nseeds: [0]\n")
    runs = load_grid(path, REGISTRY).runs
    assert [run.build_estimator(REGISTRY).extra_repr() for run in runs] == [
        "t=0.0, n_samples=1",
        "t=1000.0, n_samples=1",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "estimators: [{name: mve, t: 2}]\n" + GRID,
            "1:29: estimators[0].t: expected no t here, got 2. A schedule of the grid sets it.",
        ),
        (
            "estimators: [reinmax]\nseeds: [0]\nschedules: [growing]\n",
            "1:14: estimators[0]: expected a schedule of tau, got 'none'. Add constant to schedules.",
        ),
        (
            "estimators: [mve]\nseeds: [0]\nschedules: [{kind: growing, final: 0.5}]\n",
            "3:36: schedules[0].final: expected more than initial (1), got 0.5.",
        ),
        (
            "estimators: [{name: mve, t: -1}]\nseeds: [0]\n",
            "1:29: estimators[0].t: expected 0 <= t <= 1e+09, got -1.0.",
        ),
    ],
)
def test_what_cannot_be_is_one_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(GridError) as error:
        load_grid(path, REGISTRY)
    assert list(error.value.messages) == [f"{path}:{problem}"]
