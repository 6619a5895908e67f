"""What evaluates a task in its tests: draws of one-hot codes from the logits themselves."""

import torch
from torch import Tensor

from harness.tasks.codes import one_hot_samples


class Draws:
    """Draws from softmax(logits), for an estimator that has no law of its own (`tasks.task.Draw`)."""

    def __init__(self, n_samples: int = 1, bound_samples: int = 1) -> None:
        self.n_samples, self.bound_samples = n_samples, bound_samples

    def law(self, logits_BLH: Tensor, layer: str = "z") -> Tensor:
        return logits_BLH

    def __call__(self, logits_BLH: Tensor, layer: str = "z", n_samples: int | None = None) -> Tensor:
        return one_hot_samples(logits_BLH, n_samples or self.n_samples)

    def mode(self, logits_BLH: Tensor, layer: str = "z") -> Tensor:
        return torch.nn.functional.one_hot(logits_BLH.argmax(-1), logits_BLH.shape[-1]).to(logits_BLH)[None]
