"""`evaluation.checkpoint: best`: what is tested is the best epoch by validation, also after interruptions."""

import io
from collections.abc import Callable

import pytest
import torch
from cut_runs import cut_after, without_times
from small_tasks import SMALL_REGISTRY, run_of

from estimators import REGISTRY
from harness.config import EvaluationConfig, RunConfig, TrainingConfig
from harness.events import EpochDone, Event, Finished, Weights
from harness.schedules import Exponential, Learned
from harness.train import train
from harness.training.best import keep_best
from harness.training.evaluate import test_metrics as final_metrics
from harness.training.run_controls import RunControls
from harness.training.state import parameters, start

Make = Callable[..., RunConfig]
FALLING = TrainingConfig(epochs=5, batch_size=20, lr=0.5)
"""A rate so large that the last epoch is not the best one."""


def evaluation(**settings: object) -> EvaluationConfig:
    return EvaluationConfig(**{"bound_samples": 2, "n_images": 2, "checkpoint": "best"} | settings)


def ends(events: list[Event]) -> tuple[list[float], dict[str, float]]:
    """Return the validation losses of the epochs that have one, and the final metrics."""
    *_, end = events
    assert isinstance(end, Finished), end
    losses = [event.metrics.get("val/loss", float("inf")) for event in events if isinstance(event, EpochDone)]
    return losses, end.metrics


def final(run: RunConfig) -> dict[str, float]:
    """Return the final metrics that are no times."""
    metrics = ends(list(train(run, REGISTRY)))[1]
    return {name: value for name, value in metrics.items() if name.startswith(("test/", "latent/"))}


def test_the_epoch_with_the_best_validation_is_tested(tiny_run: Make) -> None:
    schedule = Exponential(initial=1.0, rate=0.05, floor=0.2, every=1)
    run = tiny_run(training=FALLING, evaluation=evaluation(), schedule=schedule)
    losses, metrics = ends(list(train(run, REGISTRY)))
    epoch = losses.index(min(losses)) + 1
    assert metrics["evaluation/epoch"] == epoch < 5
    stopped = FALLING.model_copy(update={"epochs": epoch})  # the same updates, and then the end
    last = tiny_run(training=stopped, evaluation=evaluation(checkpoint="last"), schedule=schedule)
    assert final(run) == final(last)
    assert final(tiny_run(training=FALLING, evaluation=evaluation(checkpoint="last"), schedule=schedule)) != final(last)


def test_only_epochs_with_a_validation_count(tiny_run: Make) -> None:
    losses, metrics = ends(list(train(tiny_run(training=FALLING, evaluation=evaluation(validation_every=2)), REGISTRY)))
    assert metrics["evaluation/epoch"] in (2, 4, 5)
    assert losses[int(metrics["evaluation/epoch"]) - 1] == min(losses)


def test_the_direction_is_that_of_the_measure() -> None:
    run = run_of(
        "hard_gate", "rloo", "training: {epochs: 6, batch_size: 16, lr: 0.5}\nevaluation: {checkpoint: best}\n"
    )
    events = list(train(run, SMALL_REGISTRY))
    shares = [event.metrics["val/accuracy"] for event in events if isinstance(event, EpochDone)]
    assert len(set(shares)) > 1
    assert ends(events)[1]["evaluation/epoch"] == shares.index(max(shares)) + 1


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("reinforce_ema", None), ("rebar", Learned(initial=0.5, lr=0.05, through="variance"))],
)
def test_an_interrupted_run_tests_the_same_epoch_with_the_same_bits(
    name: str, schedule: object, tiny_run: Make
) -> None:
    run = tiny_run(name, training=FALLING, evaluation=evaluation(), **({"schedule": schedule} if schedule else {}))
    whole = without_times(train(run, REGISTRY))
    for cut in (1, 4, 5):
        first, checkpoint = cut_after(run, cut)
        torch.rand(7)
        assert without_times(first) + without_times(train(run, REGISTRY, checkpoint)) == whole


def test_the_weights_that_are_saved_are_those_that_were_tested(tiny_run: Make) -> None:
    run = tiny_run(training=FALLING, evaluation=evaluation())
    stopped = int(ends(list(train(run, REGISTRY)))[1]["evaluation/epoch"])
    last = tiny_run(training=FALLING.model_copy(update={"epochs": stopped}))
    saved = [
        next(
            event
            for event in train(each, REGISTRY, controls=RunControls(keeps_model=True))
            if isinstance(event, Weights)
        )
        for each in (run, last)
    ]
    one, other = (torch.load(io.BytesIO(event.content), weights_only=True)["vae"] for event in saved)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_first_of_equal_epochs_is_kept_and_copied(tiny_run: Make) -> None:
    run = tiny_run(evaluation=evaluation())
    state = start(run, REGISTRY, torch.device("cpu"))
    before = final_metrics(run, state)[0]
    for state.epoch, value in enumerate((3.0, 2.0, 2.0, 2.5), 1):
        keep_best(run, state, {"val/loss": value})
        if state.epoch == 2:
            assert state.best is not None
            assert final_metrics(run, state)[0] == before
            with torch.no_grad():
                for parameter in state.task.parameters():
                    parameter.add_(1.0)
    assert state.best is not None
    assert (state.best.epoch, state.best.value) == (2, 2.0)
    kept, now = state.best.parameters["task"], parameters(state)["task"]
    assert not any(torch.equal(kept[name], now[name]) for name in kept)


def test_a_validation_without_the_measure_is_an_error_in_one_line(tiny_run: Make) -> None:
    run = run_of("hard_gate", "rloo", "evaluation: {checkpoint: best}\n")
    state = start(run, SMALL_REGISTRY, torch.device("cpu"))
    with pytest.raises(
        ValueError, match=r"^evaluation\.checkpoint: expected last, as hard_gate has no val/accuracy, got"
    ):
        keep_best(run, state, {"val/loss": 1.0})


def test_without_it_nothing_is_kept(tiny_run: Make) -> None:
    run = tiny_run()
    state = start(run, REGISTRY, torch.device("cpu"))
    keep_best(run, state, {"val/loss": 1.0})
    assert state.best is None
    assert "evaluation/epoch" not in ends(list(train(run, REGISTRY)))[1]
