"""ARSM: augment, REINFORCE, swap, merge."""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from estimators import base
from estimators.base import Cost, Estimate, Estimator, check_count, replace_gradient, samples_per_call
from estimators.gumbel import one_hot, perturb

MAX_EVALUATIONS = 10_000
"""The most evaluations for each example: enough for 141 classes with one sample."""


@final
class ARSM(Estimator):
    """ARSM: augment, REINFORCE, swap, merge.

    A code comes from Dirichlet noise. Two classes exchange their noise, in all variables at once, and the cost of the
    code that this gives is compared with the costs of the other exchanges, which are its baselines.

    Approximates  ∇ E[f(D)]  with  mean over n of  Σ_j (F_cj − mean_m F_mj) (1/K − ϖ_lj)  for class c of variable l,
                  ϖ_l ~ Dirichlet(1, …, 1),  F_cj = f(D^{c⇌j}),  D^{c⇌j}_l = argmin_k (log ϖ_lk − θ_lk) after ϖ_lc and
                  ϖ_lj have been exchanged in every l.
    Requires      nothing of f but its value; n_samples >= 1, each of which costs 1 + K(K−1)/2 evaluations, 10 000 of
                  them at most.
    Bias          none: E[f(D) (1 − K ϖ_lc)] is the gradient, exchanged noise has the same law, and the baselines
                  subtract the mean over c, whose mean is 0. A class of probability 0 gets a gradient of mean 0, not 0.
    Reference     Yin, Yue, Zhou (2019), "ARSM: Augment-REINFORCE-Swap-Merge Estimator for Gradient Backpropagation
                  Through Categorical Variables", ICML 2019, arXiv:1905.01413, section 3.
    Departures    the cost that is reported, and that trains the decoder, is that of D alone; exchanges that happen to
                  give the same code are evaluated all the same, so that the number of evaluations is fixed.
    """

    name = "arsm"
    reference = "Yin, Yue, Zhou (2019), ICML, arXiv:1905.01413"
    use_when = "for comparison, with few classes: rloo with K(K−1)/2 + 1 samples costs the same and often varies less"
    unbiased = True
    relaxes = False
    black_box = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError if there are more than MAX_EVALUATIONS."""
        count = self.n_cost_evals(n_latents, n_categories)
        if count > MAX_EVALUATIONS:
            raise ValueError(
                f"{self.name}: expected at most {MAX_EVALUATIONS} evaluations of the cost, got {count}:"
                f" n_samples (K(K−1)/2 + 1), K = {n_categories}. Use fewer classes, or carms."
            )

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the code itself and one for each pair of classes, for each sample."""
        return self.n_samples * (1 + n_categories * (n_categories - 1) // 2)

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; exchanged codes are evaluated for their values only."""
        fixed_BLK = logits_BLK.detach()
        log_noise_SBLK = -perturb(torch.zeros_like(fixed_BLK), self.n_samples)  # log E, and ϖ = E / Σ E
        gap_SBLK = log_noise_SBLK - fixed_BLK
        z_SBLK = one_hot(gap_SBLK.argmin(-1), like=fixed_BLK)
        cost_SB = self.evaluate(cost, z_SBLK)
        cost_B = cost_SB.mean(0)
        if not (torch.is_grad_enabled() and logits_BLK.requires_grad):
            return Estimate(cost_B, z_SBLK=z_SBLK)
        table_SBKK = self._exchanged_costs(cost, cost_SB.detach(), log_noise_SBLK, fixed_BLK)
        advantage_SBKK = table_SBKK - table_SBKK.mean(-2, keepdim=True)
        weight_SBLK = 1 / logits_BLK.shape[-1] - F.softmax(log_noise_SBLK, dim=-1)
        gradient_BLK = torch.einsum("sbcj,sblj->sblc", advantage_SBKK, weight_SBLK).mean(0)
        linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-2, -1)).to(cost_B.dtype)
        return Estimate(replace_gradient(cost_B, cost_B + linear_B), z_SBLK=z_SBLK)

    def _exchanged_costs(self, cost: Cost, cost_SB: Tensor, log_noise_SBLK: Tensor, logits_BLK: Tensor) -> Tensor:
        """Return F_SBKK, a table symmetric in its classes, with f(D) on the diagonal."""
        n_samples, n_examples, _, n_categories = log_noise_SBLK.shape
        table_SBKK = cost_SB.to(log_noise_SBLK.dtype)[..., None, None].repeat(1, 1, n_categories, n_categories)
        pairs_2P = torch.triu_indices(n_categories, n_categories, offset=1, device=logits_BLK.device)
        pairs_per_call = samples_per_call(base.CODES_PER_CALL, n_samples * n_examples)
        for some_2Q in torch.split(pairs_2P, pairs_per_call, dim=-1) if n_categories > 1 else ():
            class_QSBL = _exchange(log_noise_SBLK, logits_BLK, some_2Q)
            cost_RB = self.evaluate_classes(cost, class_QSBL.flatten(0, 1), like=logits_BLK)
            cost_SBQ = cost_RB.view(some_2Q.shape[-1], n_samples, n_examples).movedim(0, -1).to(table_SBKK.dtype)
            table_SBKK[..., some_2Q[0], some_2Q[1]] = cost_SBQ
            table_SBKK[..., some_2Q[1], some_2Q[0]] = cost_SBQ
        return table_SBKK


def _exchange(log_noise_SBLK: Tensor, logits_BLK: Tensor, pairs_2Q: Tensor) -> Tensor:
    """Return the class numbers (Q, S, B, L) of the codes after the noise of the two classes of a pair is exchanged.

    Only two of the K values change, so the least of the others is among the three that were least: no K values for
    each pair have to be kept.
    """
    least = (log_noise_SBLK - logits_BLK).topk(min(3, logits_BLK.shape[-1]), dim=-1, largest=False)
    first_Q, second_Q = pairs_2Q
    pairs_2Q1111 = pairs_2Q[..., None, None, None, None]
    changes_QSBLT = (least.indices == pairs_2Q1111).any(0)
    other_QSBL = least.values.masked_fill(changes_QSBLT, torch.inf).min(-1)
    first_QSBL, second_QSBL = (
        (log_noise_SBLK[..., theirs_Q] - logits_BLK[..., own_Q]).movedim(-1, 0)
        for theirs_Q, own_Q in ((second_Q, first_Q), (first_Q, second_Q))
    )
    other_class_QSBL = least.indices.expand(*changes_QSBLT.shape).gather(-1, other_QSBL.indices[..., None])[..., 0]
    choice_QSBL = torch.stack([other_QSBL.values, first_QSBL, second_QSBL]).argmin(0)
    first_Q111, second_Q111 = pairs_2Q[..., None, None, None]
    changed_QSBL = torch.where(choice_QSBL == 1, first_Q111, second_Q111)
    return torch.where(choice_QSBL == 0, other_class_QSBL, changed_QSBL)
