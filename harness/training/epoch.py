"""What an epoch of training came to: the losses of its updates and its times; and where it diverged."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.training import timing
from harness.training.state import State


class Update(NamedTuple):
    """What one update reports, as scalars on the run's device: reconstruction cost, KL, sum of the gradients."""

    bce: Tensor
    kl: Tensor
    gradient_sum: Tensor


class Epoch(NamedTuple):
    """One pass over the training images. `updates` has a row for each step: the three numbers of its Update."""

    updates: Tensor
    batch_sizes: Tensor
    step_s: list[float]
    seconds: float

    @classmethod
    def of(cls, updates: Sequence[Update], batch_sizes: Sequence[int], timer: timing.StepTimer) -> "Epoch":
        """Collect what was measured, after waiting for the device."""
        step_s, seconds = timer.seconds()
        values = torch.stack([value for update in updates for value in update]).view(-1, len(Update._fields))
        return cls(values.cpu(), torch.tensor(batch_sizes), step_s, seconds)

    def metrics(self, batch_size: int) -> dict[str, float]:
        """Return the means of the losses over the examples, each batch at the weights it was trained on, and times."""
        sizes = self.batch_sizes.double()
        bce, kl = (self.updates[:, :2].double() * (sizes / sizes.sum())[:, None]).sum(0).tolist()
        return {"train/loss": bce + kl, "train/bce": bce, "train/kl": kl} | timing.summary(self.step_s, batch_size)

    def divergence(self) -> tuple[int, str] | None:
        """Return the index of the first update with a loss or gradient that is not finite, and which; else None."""
        bad = (~self.updates.isfinite().all(1)).nonzero()
        if not len(bad):
            return None
        index = int(bad[0])
        bce, kl, gradient_sum = self.updates[index].tolist()
        return index, f"loss is {bce + kl}" if not math.isfinite(bce + kl) else f"gradient is {gradient_sum}"


def gradient_sum(state: State) -> Tensor:
    """Return the sum of the gradients of all trained vectors. It is finite exactly as long as they are.

    Every gradient that flows reaches a bias, and biases are so few that the sum costs 0.2 % of a step.
    """
    vectors = [p.grad for p in (*state.by_loss, *state.by_control) if p.ndim < 2 and p.grad is not None]
    return torch.cat([vector.flatten() for vector in vectors]).sum()


def non_finite_name(metrics: Mapping[str, float]) -> str | None:
    """Return the name of a metric that is not finite, or None."""
    return next((name for name, value in metrics.items() if not math.isfinite(value)), None)
