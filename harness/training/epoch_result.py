"""What an epoch of training gave: losses, gradients, times, and the first update that is not finite."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.config import RunConfig
from harness.events import Diverged
from harness.training import timing
from harness.training.evaluate import validation_metrics
from harness.training.state import State


class StepResult(NamedTuple):
    """What one update reports, as scalars on the run's device: the terms of the loss, and the sum of the gradients."""

    terms: tuple[Tensor, ...]
    gradient_sum: Tensor


class EpochResult(NamedTuple):
    """One pass over the training examples. `steps` has a row for each update: the numbers of its StepResult."""

    steps: Tensor
    batch_sizes: Tensor
    step_s: list[float]
    seconds: float

    @classmethod
    def of(cls, steps: Sequence[StepResult], batch_sizes: Sequence[int], timer: timing.StepTimer) -> "EpochResult":
        """Collect what was measured, after waiting for the device."""
        step_s, seconds = timer.seconds()
        numbers = [value for step in steps for value in (*step.terms, step.gradient_sum)]
        values = torch.stack(numbers).view(len(steps), -1)
        return cls(values.cpu(), torch.tensor(batch_sizes), step_s, seconds)

    def metrics(self, term_names: Sequence[str], batch_size: int) -> dict[str, float]:
        """Return the means of the losses over the examples, each batch at the weights it was trained on, and times."""
        sizes = self.batch_sizes.double()
        means = (self.steps[:, :-1].double() * (sizes / sizes.sum())[:, None]).sum(0).tolist()
        terms = {f"train/{name}": mean for name, mean in zip(term_names, means, strict=True)}
        return {"train/loss": sum(means)} | terms | timing.summary(self.step_s, batch_size)

    def divergence(self, state: State) -> Diverged | None:
        """Return the first update of the epoch with a loss or gradient that is not finite, if there is one."""
        bad = (~self.steps.isfinite().all(1)).nonzero()
        if not len(bad):
            return None
        index = int(bad[0])
        *terms, gradient_sum = self.steps[index].tolist()
        what = f"loss is {sum(terms)}" if not math.isfinite(sum(terms)) else f"gradient is {gradient_sum}"
        step = state.step - len(self.steps) + index + 1
        return Diverged(step, f"{state.estimator.name}: {what} at step {step} (epoch {state.epoch})")


def gradient_sum(state: State) -> Tensor:
    """Return the sum of the gradients of all trained vectors. It is finite exactly as long as they are.

    In the VAE every gradient that flows reaches a bias, and biases are so few that the sum costs 0.2 % of a step. Other
    tasks need not have biases, so all their parameters count.
    """
    trained = (*state.trained_by_loss, *state.trained_by_control)
    gradients = [p.grad for p in trained if p.grad is not None and (p.ndim < 2 or not state.task.sums_biases)]
    return torch.cat([gradient.flatten() for gradient in gradients]).sum()


def epoch_metrics(run: RunConfig, state: State, result: EpochResult) -> dict[str, float]:
    """Return the metrics of an epoch: training, temperatures, and validation where it is due."""
    batch_size = min(run.training.batch_size, state.splits.n_train)
    metrics = result.metrics(state.task.term_names(), batch_size) | state.temperatures()
    if state.epoch % run.evaluation.validation_every == 0 or state.epoch == run.training.epochs:
        metrics |= validation_metrics(run, state)
    return metrics


def non_finite(metrics: Mapping[str, float], step: int, when: str) -> Diverged | None:
    """Return the first metric that is not finite as the end of the run, if there is one."""
    name = next((name for name, value in metrics.items() if not math.isfinite(value)), None)
    return None if name is None else Diverged(step, f"{name} is {metrics[name]} {when}")
