"""One-hot codes for an evaluation, drawn from the laws of the estimators."""

from collections import defaultdict
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from estimators import Estimator
from harness.tasks.codes import one_hot_samples
from harness.tasks.latents import LatentSums, LatentUse, latent_use
from harness.tasks.task import LAYER


@final
class CodeDraws:
    """Draws one-hot codes from the laws of the estimators, and sums up how the latents are used (`tasks.task.Draw`)."""

    def __init__(self, estimators: Mapping[str, Estimator], n_samples: int = 1, bound_samples: int = 1) -> None:
        self._estimators = estimators
        self.n_samples, self.bound_samples = n_samples, bound_samples
        self._sums: dict[str, LatentSums] = defaultdict(LatentSums)

    def law(self, logits_BLH: Tensor, layer: str = LAYER) -> Tensor:
        """Return the logits (B, L, K) of the law of the one-hot codes."""
        return self._estimators[layer].class_logits(logits_BLH)

    def __call__(self, logits_BLH: Tensor, layer: str = LAYER, n_samples: int | None = None) -> Tensor:
        """Return z_SBLK; S = `n_samples`, by default that of the evaluation."""
        logits_BLK = self.law(logits_BLH, layer)
        self._sums[layer].add(logits_BLK)
        return one_hot_samples(logits_BLK, n_samples or self.n_samples)

    def mode(self, logits_BLH: Tensor, layer: str = LAYER) -> Tensor:
        """Return the most probable code of each example, z_1BLK."""
        logits_BLK = self.law(logits_BLH, layer)
        index_BL1 = logits_BLK.argmax(-1, keepdim=True)
        return torch.zeros_like(logits_BLK).scatter_(-1, index_BL1, 1.0).unsqueeze(0)

    def use(self) -> LatentUse | None:
        """Return how the latents of all layers are used; None if nothing was drawn."""
        return latent_use(self._sums.values()) if self._sums else None
