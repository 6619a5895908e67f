"""Training on the device: the losses of the CPU, the same numbers twice, every task, compiled steps."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from estimators import REGISTRY
from harness.config import DataConfig, EstimatorConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import EpochDone, Finished
from harness.schedules import Constant
from harness.tasks.registry import TASKS
from harness.train import train
from harness.training.radam import FusedRAdam
from harness.training.timing import StepTimer

TIMES = ("time/", "memory/")


def small_run(device: torch.device, **changes: Any) -> RunConfig:
    sections: dict[str, Any] = {
        "data": DataConfig(train_size=200),
        "model": ModelConfig(n_latents=3, n_categories=4, hidden=(16,)),
        "training": TrainingConfig(epochs=2, batch_size=50),
        "evaluation": EvaluationConfig(bound_samples=2, n_images=2),
        "schedule": Constant(tau=1.0),
        "estimator": EstimatorConfig(name="gumbel_softmax"),
    }
    return RunConfig(device=str(device), **(sections | changes))


def numbers(run: RunConfig) -> list[dict[str, float]]:
    """Return every metric that is not a time, in order."""
    found = [event.metrics for event in train(run, REGISTRY) if isinstance(event, EpochDone | Finished)]
    return [{name: value for name, value in metrics.items() if not name.startswith(TIMES)} for metrics in found]


def test_timer_times_the_device(device: torch.device) -> None:
    timer = StepTimer(device)
    for _ in range(5):
        torch.randn(2000, 2000, device=device) @ torch.randn(2000, 2000, device=device)
        timer.lap()
    step_s, total = timer.seconds()
    assert len(step_s) == 5
    assert sum(step_s) <= total + 0.01


def test_training_agrees_with_the_cpu_at_the_first_epoch_and_with_itself(device: torch.device) -> None:
    here, there = (numbers(small_run(place)) for place in (torch.device("cpu"), device))
    assert there[0]["train/loss"] == pytest.approx(here[0]["train/loss"], rel=0.02)
    assert numbers(small_run(device)) == there


def test_radam_equals_that_of_torch_in_every_step(device: torch.device) -> None:
    ours, theirs = (
        kind([torch.nn.Parameter(torch.linspace(-1, 1, 12, device=device).view(3, 4))], lr=1e-2)
        for kind in (FusedRAdam, torch.optim.RAdam)
    )
    for step in range(50):
        for optimizer in (ours, theirs):
            (parameter,) = optimizer.param_groups[0]["params"]
            parameter.grad = torch.linspace(0.1, 2.0, 12, device=device).view(3, 4) * math.cos(step)
            optimizer.step()
        one, other = (optimizer.param_groups[0]["params"][0] for optimizer in (ours, theirs))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gumbel_softmax", "straight_through", "reinmax"])
def test_a_compiled_step_has_the_numbers_of_a_plain_one(name: str, device: torch.device) -> None:
    one = {"estimator": EstimatorConfig(name=name)}
    plain, compiled = (
        numbers(small_run(device, training=TrainingConfig(epochs=1, batch_size=50, compile=how), **one))
        for how in ("off", "on")
    )
    assert compiled[0]["train/loss"] == pytest.approx(plain[0]["train/loss"], rel=1e-3)


@pytest.mark.parametrize("task", [name for name in TASKS if name != "vae"])
def test_every_task_trains(task: str, device: torch.device) -> None:
    pytest.importorskip("yaml")
    from harness.grid.load import load_grid

    text = f"name: one\ntask: {task}\nestimators: [rloo]\nseeds: [0]\ndevices: [{device}]\n"
    (run,) = load_grid(Path("grid.yaml"), REGISTRY, text + "training: {epochs: 1, batch_size: 100, lr: 0.001}\n").runs
    assert all(map(math.isfinite, numbers(run)[-1].values()))
