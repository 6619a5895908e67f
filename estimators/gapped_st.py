"""Gapped straight-through: the properties of Gumbel noise that matter, without the noise."""

from typing import final

import torch
from torch import Tensor

from estimators.base import Pathwise, check_count, check_number, replace_gradient
from estimators.gumbel import one_hot, sample_classes, wide
from estimators.simplex import softmax


@final
class GappedST(Pathwise):
    """Gapped straight-through (GST).

    The sampled class is lifted to the largest logit and the others are kept at least a gap below it, much as Gumbel
    noise does: the relaxation agrees with the code, and nothing else is random.

    Approximates  ∇ E[f(D)]  with  (1/τ) J(softmax(θ'/τ)) ∇f(D),  D ~ Cat(π),  π = softmax(θ),  θ'_D = max θ,
                  θ'_j = min(θ_j, max θ − gap) for all others,  J(p) = diag(p) − p pᵀ. gap = "p" means
                  −log(1 − π_D)/π_D.
    Requires      f differentiable at one-hot codes; n_samples >= 1; tau > 0; gap > 0 or "p".
    Bias          yes: ∇f is taken at D, its Jacobian at softmax(θ'/τ).
    Reference     Fan, Chi, Rudnicky, Ramadge (2022), "Training Discrete Deep Generative Models via Gapped
                  Straight-Through Estimator", arXiv:2206.07235, section on the estimator.
    Departures    none in the formula. Where π_D rounds to 1, gap = "p" would be infinite: it stops at −log ε, 15.9 in
                  float32 (in the authors' code at 11.5).
    """

    name = "gapped_st"
    reference = "Fan, Chi, Rudnicky, Ramadge (2022), arXiv:2206.07235"
    use_when = "st_gumbel_softmax is too noisy: the variance of straight_through, and code and relaxation agree"
    relaxes = False
    tau: float
    gap: float | str

    def __init__(self, *, tau: float = 1.0, gap: float | str = 1.0, n_samples: int = 1) -> None:
        """Raise ValueError for an impossible argument."""
        super().__init__()
        self.tau = tau
        if isinstance(gap, str) and gap != "p":
            raise ValueError(f'{self.name}: expected gap > 0 or "p", got {gap!r}.')
        self.gap = gap if isinstance(gap, str) else check_number(self.name, "gap", gap, above=0.0)
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of the softmax of their gapped logits."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        wide_BLK = wide(logits_BLK)
        x_BLK = wide_BLK.detach()
        largest_BL1 = x_BLK.amax(-1, keepdim=True)
        below_SBLK = torch.minimum(x_BLK, largest_BL1 - self._gap(x_BLK, class_SBL))
        gapped_SBLK = torch.where(z_SBLK.detach() == 1, largest_BL1, below_SBLK)
        tied_SBLK = replace_gradient(gapped_SBLK, wide_BLK.expand_as(gapped_SBLK))
        soft_SBLK = softmax(tied_SBLK / self.tau).to(logits_BLK.dtype)
        return replace_gradient(z_SBLK, soft_SBLK, logits_BLK, name=self.name)

    def _gap(self, x_BLK: Tensor, class_SBL: Tensor) -> float | Tensor:
        if not isinstance(self.gap, str):
            return self.gap
        probs_SBLK = softmax(x_BLK).expand(*class_SBL.shape, -1)
        limits = torch.finfo(x_BLK.dtype)
        prob_SBL1 = probs_SBLK.gather(-1, class_SBL.unsqueeze(-1)).clamp(limits.tiny, 1 - limits.eps)
        return -torch.log1p(-prob_SBL1) / prob_SBL1
