"""What an epoch of training gave: losses, gradients, times, and the first update that is not finite."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.config import RunConfig
from harness.datasets.load import Dataset
from harness.events import Diverged
from harness.training import timing
from harness.training.evaluate import validation_metrics
from harness.training.state import State


class StepResult(NamedTuple):
    """What one update reports, as scalars on the run's device: reconstruction cost, KL, sum of the gradients."""

    bce: Tensor
    kl: Tensor
    gradient_sum: Tensor


class EpochResult(NamedTuple):
    """One pass over the training images. `steps` has a row for each update: the three numbers of its StepResult."""

    steps: Tensor
    batch_sizes: Tensor
    step_s: list[float]
    seconds: float

    @classmethod
    def of(cls, steps: Sequence[StepResult], batch_sizes: Sequence[int], timer: timing.StepTimer) -> "EpochResult":
        """Collect what was measured, after waiting for the device."""
        step_s, seconds = timer.seconds()
        values = torch.stack([value for step in steps for value in step]).view(-1, len(StepResult._fields))
        return cls(values.cpu(), torch.tensor(batch_sizes), step_s, seconds)

    def metrics(self, batch_size: int) -> dict[str, float]:
        """Return the means of the losses over the examples, each batch at the weights it was trained on, and times."""
        sizes = self.batch_sizes.double()
        bce, kl = (self.steps[:, :2].double() * (sizes / sizes.sum())[:, None]).sum(0).tolist()
        return {"train/loss": bce + kl, "train/bce": bce, "train/kl": kl} | timing.summary(self.step_s, batch_size)

    def divergence(self, state: State) -> Diverged | None:
        """Return the first update of the epoch with a loss or gradient that is not finite, if there is one."""
        bad = (~self.steps.isfinite().all(1)).nonzero()
        if not len(bad):
            return None
        index = int(bad[0])
        bce, kl, gradient_sum = self.steps[index].tolist()
        what = f"loss is {bce + kl}" if not math.isfinite(bce + kl) else f"gradient is {gradient_sum}"
        step = state.step - len(self.steps) + index + 1
        return Diverged(step, f"{state.estimator.name}: {what} at step {step} (epoch {state.epoch})")


def gradient_sum(state: State) -> Tensor:
    """Return the sum of the gradients of all trained vectors. It is finite exactly as long as they are.

    Every gradient that flows reaches a bias, and biases are so few that the sum costs 0.2 % of a step.
    """
    trained = (*state.trained_by_loss, *state.trained_by_control)
    return torch.cat([p.grad.flatten() for p in trained if p.ndim < 2 and p.grad is not None]).sum()


def epoch_metrics(run: RunConfig, state: State, dataset: Dataset, result: EpochResult) -> dict[str, float]:
    """Return the metrics of an epoch: training, temperatures, and validation where it is due."""
    metrics = result.metrics(min(run.training.batch_size, len(dataset.train_ND))) | state.temperatures()
    if state.epoch % run.evaluation.validation_every == 0 or state.epoch == run.training.epochs:
        metrics |= validation_metrics(run, state.vae, state.estimator, dataset, state.epoch)
    return metrics


def non_finite(metrics: Mapping[str, float], step: int, when: str) -> Diverged | None:
    """Return the first metric that is not finite as the end of the run, if there is one."""
    name = next((name for name, value in metrics.items() if not math.isfinite(value)), None)
    return None if name is None else Diverged(step, f"{name} is {metrics[name]} {when}")
