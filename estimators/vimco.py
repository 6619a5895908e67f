"""VIMCO: the score function of a bound over several codes, each compared with the bound of the others."""

import math
from typing import final

import torch
from torch import Tensor

from estimators.base import Estimate, add_score, check_count
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import log_prob, one_hot, sample_classes


@final
class VIMCO(DrawsFirst):
    """VIMCO: variational inference for Monte Carlo objectives.

    The objective is the importance-weighted bound over n codes. A code's learning signal is the bound less what it
    would be if that code had the geometric mean weight of the others: no baseline has to be learned.

    Approximates  ∇ −E[L̂],  L̂ = log 1/n Σ_i w_i,  w_i = e^{−f(D_i)} p(D_i)/q(D_i),  p uniform,  with
                  −Σ_i (L̂ − L̂_{−i}) ∇ log q(D_i) − ∂L̂/∂θ,  L̂_{−i}: L̂ with log w_i ← mean over j ≠ i of log w_j.
    Requires      nothing of f but its value; n_samples >= 2.
    Bias          none, for that bound; the ELBO is another objective.
    Reference     Mnih, Rezende (2016), "Variational Inference for Monte Carlo Objectives", arXiv:1602.06725, section on
                  leave-one-out control variates, eqs. (6)–(9).
    Departures    none. The bound holds the KL to the uniform prior, so that there is none to add: `kl` is 0.
    """

    name = "vimco"
    reference = "Mnih, Rezende (2016), arXiv:1602.06725"
    use_when = "the importance-weighted bound is the objective; the other estimators train the ELBO"
    unbiased = True
    objective = "bound"
    min_samples = 2

    def __init__(self, *, n_samples: int = 4) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=self.min_samples)

    def kl(self, logits_BLK: Tensor) -> Tensor:
        """Return 0 for each example: the bound holds the KL."""
        return logits_BLK.new_zeros(logits_BLK.shape[0])

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw codes; the estimate is the negative bound. Its decoder gradient is backpropagation through weights."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        return Draw(z_SBLK, lambda cost_SB: Estimate(self._bound(logits_BLK, class_SBL, cost_SB), z_SBLK=z_SBLK))

    def _bound(self, logits_BLK: Tensor, class_SBL: Tensor, cost_SB: Tensor) -> Tensor:
        """Return the negative bound (B,) with VIMCO's gradient."""
        log_q_SB = log_prob(logits_BLK, class_SBL)
        log_prior = -logits_BLK.shape[1] * math.log(logits_BLK.shape[2])
        log_weight_SB = log_prior - cost_SB.to(log_q_SB.dtype) - log_q_SB
        bound_B = log_weight_SB.logsumexp(0) - math.log(self.n_samples)
        signal_SB = bound_B.detach() - self._without_each(log_weight_SB.detach())
        score_B = -(signal_SB * log_q_SB).sum(0)
        return add_score(-bound_B, score_B, logits_BLK, name=self.name).to(cost_SB.dtype)

    def _without_each(self, log_weight_SB: Tensor) -> Tensor:
        """Return the bounds (S, B) in which sample i has the geometric mean weight of the others."""
        n = self.n_samples
        others_SB = (log_weight_SB.sum(0) - log_weight_SB) / (n - 1)
        diagonal = torch.eye(n, dtype=torch.bool, device=log_weight_SB.device).unsqueeze(-1)
        replaced_SSB = torch.where(diagonal, others_SB.unsqueeze(0), log_weight_SB.unsqueeze(0))
        return replaced_SSB.logsumexp(1) - math.log(n)
