"""Per-variable Rao-Blackwellisation: each latent is enumerated while the others keep their samples."""

from typing import final

import torch
from torch import Tensor

from estimators import base
from estimators.base import Cost, Estimate, add_score, check_count, samples_per_call
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import one_hot, put, sample_classes, wide_dtype
from estimators.simplex import softmax
from estimators.transforms import needs_gradient


@final
class IndeCateR(DrawsFirst):
    """IndeCateR: the local expectation gradient of independent categorical variables.

    With the others held as sampled, the expectation over one latent is a short sum, and its gradient is exact. Each of
    the L latents is summed out in turn, on the same sample.

    Approximates  ∂ E[f(D)]/∂θ_l  with  mean over n of  Σ_k f(k, D_{−l}) ∂π_lk/∂θ_l,  D ~ Cat(softmax(θ)).
    Requires      nothing of f but its value; n_samples >= 1; n_samples (L(K−1) + 1) evaluations.
    Bias          none; exact for L = 1.
    Reference     De Smet, Sansone, Zuidberg Dos Martires (2023), "Differentiable Sampling of Categorical Distributions
                  Using the CatLog-Derivative Trick", arXiv:2311.12569, section on IndeCateR; Titsias (2015), "Local
                  Expectation Gradients for Doubly Stochastic Variational Inference", arXiv:1503.01494, published as
                  Titsias, Lázaro-Gredilla (2015), "Local Expectation Gradients for Black Box Variational Inference",
                  NIPS 2015.
    Departures    the sampled code is shared by all L sums, which saves one evaluation in K.
    """

    name = "indecater"
    reference = "De Smet, Sansone, Zuidberg Dos Martires (2023), arXiv:2311.12569; Titsias (2015), arXiv:1503.01494"
    use_when = "no bias is allowed, the cost may be a black box, and L·K evaluations are affordable"
    unbiased = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the number of sampled codes and of all that differ from one of them in one latent."""
        return self.n_samples * (n_latents * (n_categories - 1) + 1)

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw codes, and after them all codes that differ from one of them in one latent."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        all_L = torch.arange(logits_BLK.shape[1], device=logits_BLK.device)
        class_LSJB, codes_LSJBL = _neighbours(all_L, class_SBL, logits_BLK.shape[-1])
        z_RBLK = one_hot(torch.cat([class_SBL, codes_LSJBL.flatten(0, 2)]), like=logits_BLK)

        def estimate(cost_RB: Tensor) -> Estimate:
            cost_SB, other_LSJB = cost_RB[: self.n_samples], cost_RB[self.n_samples :].detach().view(class_LSJB.shape)
            gain_BLK = _gains(class_LSJB, other_LSJB, cost_SB.detach(), logits_BLK.shape[-1])
            return _estimate(logits_BLK, cost_SB, gain_BLK, z_RBLK[: self.n_samples])

        return Draw(z_RBLK, estimate)

    def forward(self, logits_BLK: Tensor, cost: Cost, context_BX: Tensor | None = None) -> Estimate:
        """Average the cost over the samples; the codes that differ in one latent give values only, some at a time."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        cost_SB = self.evaluate(cost, z_SBLK)
        if not needs_gradient(logits_BLK):
            return Estimate(cost_SB.mean(0), z_SBLK=z_SBLK)
        n_latents, n_categories = logits_BLK.shape[1:]
        codes_per_latent = max(1, class_SBL.shape[:2].numel() * (n_categories - 1))
        at_once = samples_per_call(base.CODES_PER_CALL, codes_per_latent)
        gains = []
        for some_M in torch.split(torch.arange(n_latents, device=class_SBL.device), at_once):
            class_MSJB, codes_MSJBL = _neighbours(some_M, class_SBL, n_categories)
            other_MSJB = self.evaluate_classes(cost, codes_MSJBL.flatten(0, 2), like=logits_BLK).view(class_MSJB.shape)
            gains.append(_gains(class_MSJB, other_MSJB, cost_SB.detach(), n_categories))
        return _estimate(logits_BLK, cost_SB, torch.cat(gains, 1), z_SBLK)


def _neighbours(latents_M: Tensor, class_SBL: Tensor, n_categories: int) -> tuple[Tensor, Tensor]:
    """Return the J = K − 1 other classes (M, S, J, B) of some latents, and the codes (M, S, J, B, L) with each of them.

    The sampled class is raised by j = 1 … K − 1, modulo K, in turn.
    """
    raise_J = torch.arange(1, n_categories, device=class_SBL.device)
    class_MSJB = (class_SBL[..., latents_M].movedim(-1, 0).unsqueeze(2) + raise_J[:, None]) % n_categories
    codes_MSJBL = class_SBL.unsqueeze(1).expand(*class_MSJB.shape, class_SBL.shape[-1]).clone()
    place_MSJB1 = latents_M.view(-1, 1, 1, 1, 1).expand(*class_MSJB.shape, 1)
    return class_MSJB, put(codes_MSJBL, place_MSJB1, class_MSJB.unsqueeze(-1))


def _gains(class_MSJB: Tensor, other_MSJB: Tensor, cost_SB: Tensor, n_categories: int) -> Tensor:
    """Return f(k, D_{−l}) − f(D), (B, M, K), mean over the samples: 0 at the sampled class."""
    gain_MSJB = other_MSJB - cost_SB.unsqueeze(1)
    gain_MSBK = gain_MSJB.new_zeros(len(class_MSJB), *cost_SB.shape, n_categories)
    gain_MSBK = put(gain_MSBK, class_MSJB.transpose(-1, -2), gain_MSJB.transpose(-1, -2))
    return gain_MSBK.mean(1).transpose(0, 1)


def _estimate(logits_BLK: Tensor, cost_SB: Tensor, gain_BLK: Tensor, z_SBLK: Tensor) -> Estimate:
    dtype = wide_dtype(logits_BLK)
    cost_B = cost_SB.mean(0)
    expected_B = (softmax(logits_BLK.to(dtype)) * gain_BLK.to(dtype)).sum((-2, -1))
    return Estimate(add_score(cost_B, expected_B, logits_BLK, name=IndeCateR.name), z_SBLK=z_SBLK)
