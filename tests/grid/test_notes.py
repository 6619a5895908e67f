"""Settings without effect on the given data and budget are refused, or noted with the number."""

import textwrap
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.commands.run_checks import check_memory_limit, saving_notes
from harness.commands.shared import Refused
from harness.config import DataConfig, EvaluationConfig, RunConfig, TrainingConfig
from harness.datasets.sizes import sizes
from harness.grid.load import GridError, load_grid
from harness.options import SavingEvery
from harness.train import train


def notes(folder: Path, text: str) -> list[str]:
    path = folder / "grid.yaml"
    path.write_text(textwrap.dedent(text) + "\nseeds: [0]\n")
    return list(load_grid(path, REGISTRY).notes)


def refusals(folder: Path, text: str) -> list[str]:
    with pytest.raises(GridError) as refused:
        notes(folder, f"{text}\nestimators: [straight_through]")
    return [message.partition("grid.yaml:")[2] for message in refused.value.messages]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: {validation_fraction: 1e-4}",
            "1:29: data.validation_fraction: expected 0, or at least one image of the 4,000 of mnist-mini, got 0.0001, "
            "which is none of them.",
        ),
        (
            "data: {validation_fraction: [0.1, 1e-5]}\nevaluation: {validation_split: test}",
            "1:35: data.validation_fraction: expected 0, or at least one image of the 4,000 of mnist-mini, got 1e-05, "
            "which is none of them.",
        ),
        (
            "data: {validation_fraction: 0.9999}",
            "1:29: data.validation_fraction: expected to leave a training image of mnist-mini, got 0.9999.",
        ),
        ("data: {train_size: 3601}", "1:20: data.train_size: expected 1 to 3,600 for mnist-mini, got 3,601."),
        (
            "data: {name: omniglot, train_size: 19280}",
            "1:36: data.train_size: expected 1 to 17,352 for omniglot, got 19,280.",
        ),
        (
            "evaluation: {n_images: 1001}",
            "1:24: evaluation.n_images: expected at most the 1,000 test images of mnist-mini, got 1,001.",
        ),
    ],
)
def test_splits_without_images_are_refused_with_their_number(tmp_path: Path, text: str, message: str) -> None:
    assert refusals(tmp_path, text) == [message]


@pytest.mark.parametrize(("fraction", "n"), [(0.0, 0), (1.3e-4, 1), (0.1, 400), (0.99975, 3999)])
def test_a_validation_fraction_of_one_image_or_more_is_accepted(fraction: float, n: int) -> None:
    assert sizes(DataConfig(validation_fraction=fraction))[:2] == (4000 - n, n)


def test_a_run_that_no_grid_made_is_refused_too() -> None:
    with pytest.raises(ValueError, match="which is none of them"):
        RunConfig(estimator={"name": "rloo"}, data=DataConfig(validation_fraction=1e-4))  # type: ignore[arg-type]


SMALL = """
data: {train_size: 100}
training: {epochs: 4, batch_size: 50}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "estimators: [straight_through]", []),
        (
            "data: {train_size: 40}\ntraining: {epochs: 1, lr_schedule: cosine, batch_size: [40, 41]}\n"
            "estimators: [rloo]",
            [
                "training.lr_schedule cosine changes nothing in runs of 1 update",
                "training.batch_size 41 is more than the 40 training images: each epoch is one update of all of them",
            ],
        ),
        (
            SMALL + "evaluation: {validation_every: [4, 5]}\nestimators: [rloo]",
            ["evaluation.validation_every 5 is more than the 4 epochs of a run: validated after the last one only"],
        ),
        (
            SMALL + "diagnostics: {every: 5 epochs, probe: 101}\nestimators: [rloo]",
            [
                "diagnostics.probe 101 is more than the 100 training images: the probe batch has all of them",
                "diagnostics.every 5 is more than the 4 epochs of a run: measured after the first and the last only",
            ],
        ),
        (
            SMALL + "schedules: [{kind: step, every: 8}]\nestimators: [gumbel_softmax]",
            ["schedule step(1→0.5, every=8) stays at tau 1 in runs of 8 updates"],
        ),
        (SMALL + "schedules: [{kind: step, every: 7}]\nestimators: [gumbel_softmax]", []),
        (
            SMALL + "schedules: [{kind: exponential, rate: 0.1, floor: 1.0}, {kind: exponential, rate: 0.0}, "
            "{kind: linear, final: 0.5, every: 4, unit: epoch}, {kind: linear, final: 0.5}]\n"
            "estimators: [gumbel_softmax]",
            [
                "schedule exponential(1→1, rate=0.1) stays at tau 1 in runs of 8 updates",
                "schedule exponential(1→0.5, rate=0) stays at tau 1 in runs of 8 updates",
                "schedule linear(1→0.5, every=4, unit=epoch) stays at tau 1 in runs of 8 updates",
            ],
        ),
        (
            SMALL + "schedules: [{kind: decoupled, forward: 1.0, backward: {kind: cosine, final: 2.0, every: 9}}]\n"
            "estimators: [decoupled_st_gs]",
            ["schedule decoupled(1, cosine(1→2, every=9)) stays at tau 1 in runs of 8 updates"],
        ),
        (SMALL + "schedules: [{kind: exponential, rate: 0.0}]\nestimators: [rloo]", []),
    ],
)
def test_settings_without_effect_are_noted(tmp_path: Path, text: str, said: list[str]) -> None:
    found = [note for note in notes(tmp_path, text) if "ignores tau" not in note]
    assert found == said


def test_images_per_second_count_the_images_there_are() -> None:
    run = RunConfig(
        estimator={"name": "straight_through"},  # type: ignore[arg-type]
        data=DataConfig(train_size=20),
        training=TrainingConfig(epochs=1, batch_size=2000),
        evaluation=EvaluationConfig(bound_samples=0, n_images=0),
    )
    *_, end = train(run, REGISTRY)
    metrics = end.metrics  # type: ignore[union-attr]
    assert metrics["time/images_per_s"] == pytest.approx(20 / metrics["time/step_s_median"])


def test_an_interval_that_no_run_reaches_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("training: {epochs: [2, 5]}\nestimators: [rloo]\nseeds: [0]\n")
    runs = load_grid(path, REGISTRY).runs
    assert saving_notes(SavingEvery(epochs=5), runs) == saving_notes(SavingEvery(seconds=60), runs) == []
    assert saving_notes(SavingEvery(epochs=6), runs) == [
        "--checkpoint-every 6epochs saves nothing: the longest run has 5 epochs"
    ]


def test_a_memory_limit_below_what_a_worker_needs_is_refused() -> None:
    check_memory_limit(None)
    check_memory_limit(1e12)
    with pytest.raises(Refused, match=r"more than a worker needs before it trains, about [\d,]+ MB, got 20 MB"):
        check_memory_limit(20e6)
