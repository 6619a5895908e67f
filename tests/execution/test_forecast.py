"""Which runs are started first: a function of the configurations alone."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from estimators import REGISTRY
from harness.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import Started
from harness.execution.forecast import longest_first, makespan, nominal_cost, run_seconds
from harness.grid.load import load_grid
from harness.options import Options
from harness.status.progress import PlainProgress
from harness.storage.journal import Journal
from harness.sweep.run import run_sweep

Make = Callable[..., RunConfig]


def forecast(run: RunConfig) -> float:
    return run_seconds(run, nominal_cost(run, REGISTRY), REGISTRY)


@pytest.mark.parametrize(
    "longer",
    [
        {"training": TrainingConfig(epochs=3, batch_size=50)},
        {"data": DataConfig(train_size=400)},
        {"data": DataConfig(name="mnist")},
        {"model": ModelConfig(n_latents=3, n_categories=4, hidden=(32,))},
        {"evaluation": EvaluationConfig(bound_samples=50, n_images=2)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_more_work_is_a_longer_forecast(tiny_run: Make, longer: dict) -> None:
    assert forecast(tiny_run(**longer)) > forecast(tiny_run())


def test_an_estimator_with_more_evaluations_takes_longer(tiny_run: Make) -> None:
    few, many = (tiny_run("rloo", params={"n_samples": n}) for n in (2, 8))
    assert forecast(few) < forecast(many)


def test_the_longest_start_first_and_ties_keep_the_order_of_the_grid(tiny_run: Make) -> None:
    runs = [tiny_run(seed=seed, training=TrainingConfig(epochs=n)) for seed in (2, 0, 1) for n in (2, 9, 2)]
    runs = [run.model_copy(update={"varies": (str(i),)}) for i, run in enumerate(runs)]
    ordered = longest_first(runs, REGISTRY)
    assert [run.varies[0] for run in ordered] == ["1", "4", "7", "0", "2", "3", "5", "6", "8"]
    assert longest_first(list(reversed(ordered)), REGISTRY)[0].training.epochs == 9
    assert longest_first([], REGISTRY) == []


def test_the_last_run_ends_after_the_earlier_runs_of_its_worker() -> None:
    assert makespan([], 2) == 0
    assert makespan([3, 3, 3], 2) == 6
    assert makespan([1, 1, 1, 5], 2) == 5
    assert makespan([2.0] * 10, 5) == 4


def test_a_sweep_starts_its_longest_run_first(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "order.yaml"
    path.write_text(
        "name: order\ndata: {train_size: 50}\nmodel: {n_latents: 2, n_categories: 3, hidden: [8]}\n"
        "training: {epochs: 1, batch_size: 50}\nevaluation: {bound_samples: 0, n_images: 0}\n"
        "estimators: [straight_through, {name: rloo, n_samples: 8}]\nseeds: [0, 1]\n"
    )
    grid = load_grid(path, REGISTRY)
    text = io.StringIO()
    progress = PlainProgress(Console(file=text, width=200))
    assert run_sweep(grid, Options(out=out, workers=1), progress) == 0
    started = [r.run_key for r in Journal(out / "order").read() if isinstance(r.event, Started)]
    by_key = {run.key: run.name for run in grid.runs}
    assert [by_key[key] for key in started] == [
        "rloo(n_samples=8) · seed 0",
        "rloo(n_samples=8) · seed 1",
        "straight_through · constant(1) · seed 0",
        "straight_through · constant(1) · seed 1",
    ]
    assert "4 finished." in text.getvalue()
