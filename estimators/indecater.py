"""Per-variable Rao-Blackwellisation: each latent is enumerated while the others stay as they were sampled."""

from typing import final

import torch
from torch import Tensor

from estimators.base import Cost, Estimate, Estimator, check_count, replace_gradient
from estimators.gumbel import one_hot, sample_classes
from estimators.simplex import softmax


@final
class IndeCateR(Estimator):
    """IndeCateR: the local expectation gradient of independent categorical variables.

    With the others held as sampled, the expectation over one latent is a short sum, and its gradient is exact. Each of
    the L latents is summed out in turn, on the same sample.

    Approximates  ∂ E[f(D)]/∂θ_l  with  mean over n of  Σ_k f(k, D_{−l}) ∂π_lk/∂θ_l,  D ~ Cat(softmax(θ)).
    Requires      nothing of f but its value; n_samples >= 1; n_samples (L(K−1) + 1) evaluations.
    Bias          none; exact for L = 1.
    Reference     De Smet, Sansone, Zuidberg Dos Martires (2023), "Differentiable Sampling of Categorical Distributions
                  Using the CatLog-Derivative Trick", arXiv:2311.12569, section on IndeCateR; Titsias, Lázaro-Gredilla
                  (2015), "Local Expectation Gradients for Black Box Variational Inference", arXiv:1503.01494.
    Departures    the code that was sampled serves all L sums, so that one evaluation in K is saved.
    """

    name = "indecater"
    reference = "De Smet, Sansone, Zuidberg Dos Martires (2023), arXiv:2311.12569; Titsias, Lázaro-Gredilla (2015)"
    use_when = "no bias is allowed, the cost may be a black box, and L·K evaluations are affordable"
    unbiased = True
    relaxes = False
    black_box = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the sampled codes and all that differ from one of them in one latent."""
        return self.n_samples * (n_latents * (n_categories - 1) + 1)

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; the codes that differ in one latent give values only."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        cost_B = cost_SB.mean(0)
        if not (torch.is_grad_enabled() and logits_BLK.requires_grad):
            return Estimate(cost_B)
        dtype = torch.promote_types(logits_BLK.dtype, torch.float32)
        gain_BLK = self._gains(cost, class_SBL, cost_SB.detach(), logits_BLK).to(dtype)
        expected_B = (softmax(logits_BLK.to(dtype)) * gain_BLK).sum((-2, -1))
        return Estimate(replace_gradient(cost_B, cost_B + expected_B.to(cost_B.dtype)))

    def _gains(self, cost: Cost, class_SBL: Tensor, cost_SB: Tensor, logits_BLK: Tensor) -> Tensor:
        """Return f(k, D_{−l}) − f(D), (B, L, K), mean over the samples: 0 at the sampled class."""
        n_examples, n_latents, n_categories = logits_BLK.shape
        shift_L1J1L = torch.zeros(n_latents, 1, n_categories - 1, 1, n_latents, dtype=torch.long, device=cost_SB.device)
        for latent in range(n_latents):
            shift_L1J1L[latent, 0, :, 0, latent] = torch.arange(1, n_categories, device=cost_SB.device)
        moved_LSJBL = (class_SBL.unsqueeze(1) + shift_L1J1L) % n_categories  # latent l is raised by j, modulo K
        n = self.n_samples
        other_LSJB = self.evaluate_classes(cost, moved_LSJBL.flatten(0, 2), like=logits_BLK).view(
            n_latents, n, n_categories - 1, n_examples
        )
        gain_LSJB = other_LSJB - cost_SB.unsqueeze(1)
        class_LSJB = torch.stack([moved_LSJBL[latent, ..., latent] for latent in range(n_latents)])
        gain_BLSK = gain_LSJB.new_zeros(n_latents, n, n_examples, n_categories)
        gain_BLSK.scatter_(-1, class_LSJB.transpose(-1, -2), gain_LSJB.transpose(-1, -2))
        return gain_BLSK.mean(1).transpose(0, 1)
