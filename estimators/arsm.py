"""ARSM: augment, REINFORCE, swap, merge."""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from estimators import base
from estimators.base import Cost, Estimate, add_score, check_count, samples_per_call
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import one_hot, perturb
from estimators.transforms import needs_gradient

MAX_EVALUATIONS = 10_000
"""The most evaluations for each example: enough for 141 classes with one sample."""


@final
class ARSM(DrawsFirst):
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

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw codes, and after them those of all exchanges."""
        fixed_BLK = logits_BLK.detach()
        log_noise_SBLK = -perturb(torch.zeros_like(fixed_BLK), self.n_samples)
        class_SBL = (log_noise_SBLK - fixed_BLK).argmin(-1)
        pairs_2P = _pairs(fixed_BLK)
        exchanged = [_exchange(log_noise_SBLK, fixed_BLK, pairs_2P).flatten(0, 1)] if pairs_2P.numel() else []
        z_RBLK = one_hot(torch.cat([class_SBL, *exchanged]), like=fixed_BLK)

        def estimate(cost_RB: Tensor) -> Estimate:
            cost_SB = cost_RB[: self.n_samples]
            table_SBKK = _table(cost_SB.detach(), log_noise_SBLK)
            _fill(table_SBKK, pairs_2P, cost_RB[self.n_samples :].detach())
            return _estimate(logits_BLK, cost_SB, table_SBKK, log_noise_SBLK, z_RBLK[: self.n_samples])

        return Draw(z_RBLK, estimate)

    def forward(self, logits_BLK: Tensor, cost: Cost, context_BX: Tensor | None = None) -> Estimate:
        """Average the cost over the samples; exchanged codes are evaluated for their values only, some at a time."""
        fixed_BLK = logits_BLK.detach()
        log_noise_SBLK = -perturb(torch.zeros_like(fixed_BLK), self.n_samples)  # log E, and ϖ = E / Σ E
        z_SBLK = one_hot((log_noise_SBLK - fixed_BLK).argmin(-1), like=fixed_BLK)
        cost_SB = self.evaluate(cost, z_SBLK)
        if not needs_gradient(logits_BLK):
            return Estimate(cost_SB.mean(0), z_SBLK=z_SBLK)
        table_SBKK = _table(cost_SB.detach(), log_noise_SBLK)
        pairs_2P = _pairs(fixed_BLK)
        pairs_per_call = samples_per_call(base.CODES_PER_CALL, cost_SB.numel())
        for some_2Q in torch.split(pairs_2P, pairs_per_call, dim=-1) if pairs_2P.numel() else ():
            class_QSBL = _exchange(log_noise_SBLK, fixed_BLK, some_2Q)
            _fill(table_SBKK, some_2Q, self.evaluate_classes(cost, class_QSBL.flatten(0, 1), like=fixed_BLK))
        return _estimate(logits_BLK, cost_SB, table_SBKK, log_noise_SBLK, z_SBLK)


def _pairs(logits_BLK: Tensor) -> Tensor:
    """Return the classes (2, P) of all pairs."""
    n_categories = logits_BLK.shape[-1]
    return torch.triu_indices(n_categories, n_categories, offset=1, device=logits_BLK.device)


def _table(cost_SB: Tensor, log_noise_SBLK: Tensor) -> Tensor:
    """Return F_SBKK with f(D) everywhere: it stays on the diagonal."""
    n_categories = log_noise_SBLK.shape[-1]
    return cost_SB.to(log_noise_SBLK.dtype)[..., None, None].repeat(1, 1, n_categories, n_categories)


def _fill(table_SBKK: Tensor, pairs_2Q: Tensor, cost_RB: Tensor) -> None:
    """Write the costs of exchanged codes, (Q · S, B), into the table, which is symmetric in its classes."""
    shape = (pairs_2Q.shape[-1], *table_SBKK.shape[:2])
    cost_SBQ = cost_RB.view(shape).movedim(0, -1).to(table_SBKK.dtype)
    table_SBKK[..., pairs_2Q[0], pairs_2Q[1]] = cost_SBQ
    table_SBKK[..., pairs_2Q[1], pairs_2Q[0]] = cost_SBQ


def _estimate(
    logits_BLK: Tensor, cost_SB: Tensor, table_SBKK: Tensor, log_noise_SBLK: Tensor, z_SBLK: Tensor
) -> Estimate:
    advantage_SBKK = table_SBKK - table_SBKK.mean(-2, keepdim=True)
    weight_SBLK = 1 / logits_BLK.shape[-1] - F.softmax(log_noise_SBLK, dim=-1)
    gradient_BLK = torch.einsum("sbcj,sblj->sblc", advantage_SBKK, weight_SBLK).mean(0)
    cost_B = cost_SB.mean(0)
    linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-2, -1))
    return Estimate(add_score(cost_B, linear_B, logits_BLK, name=ARSM.name), z_SBLK=z_SBLK)


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
