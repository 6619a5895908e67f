"""Marginalisation over sparse distributions.

The package `entmax` is imported where the estimator is built.
"""

from typing import final

import torch
from torch import Tensor

from estimators.base import Cost, Estimate, Estimator, check_count
from estimators.exact import check_n_codes, each_code
from estimators.gumbel import wide
from estimators.sparse import entmax_mapping


@final
class SparseMarginal(Estimator):
    """Exact marginalisation over a sparse posterior (sparsemax).

    Each latent's law is sparsemax(θ), which gives most classes probability 0 exactly; the expectation is a finite sum
    over the rest, and autograd differentiates it.

    Approximates  ∇ E[f(D)],  D_l ~ Cat(sparsemax(θ_l)),  with  itself:  ∇ Σ_z Π_l sparsemax(θ_l)_{z_l} f(z).
    Requires      K^L <= max_codes; the package entmax.
    Bias          none under its own law, and no variance. The law is not softmax(θ): classes outside the support have
                  no weight and receive no gradient, so that some may be lost for good.
    Reference     Correia, Niculae, Aziz, Martins (2020), "Efficient Marginalization of Discrete and Structured Latent
                  Variables via Sparsity", arXiv:2007.01919, section 3; Martins, Astudillo (2016), arXiv:1602.02068.
    Departures    all K^L codes are evaluated, those of probability 0 with weight 0: the examples of a batch differ in
                  their support, and to skip codes would make the work depend on values. The result is the paper's;
                  its saving is not. Independent latents, where the paper's structured case has SparseMAP.
    """

    name = "sparse_marginal"
    reference = "Correia, Niculae, Aziz, Martins (2020), arXiv:2007.01919"
    use_when = "on small models, where an exact gradient matters more than that the posterior be a softmax"
    unbiased = True
    relaxes = False
    black_box = True

    def __init__(self, *, max_codes: int = 16384) -> None:
        super().__init__()
        self.max_codes = check_count(self.name, "max_codes", max_codes)
        self._sparsemax = entmax_mapping(self.name, alpha=2.0)

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError if there are more than `max_codes` codes."""
        check_n_codes(self.name, self.max_codes, n_latents, n_categories)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the number of codes."""
        return int(n_categories**n_latents)

    def probabilities(self, logits_BLK: Tensor) -> Tensor:
        """Return sparsemax(θ), in float32 or wider."""
        return self._sparsemax(wide(logits_BLK))

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return log sparsemax(θ), in float32 or wider; a probability of 0 becomes the smallest normal number."""
        probs_BLK = self.probabilities(logits_BLK)
        return probs_BLK.clamp(min=torch.finfo(probs_BLK.dtype).tiny).log()

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Return the expected cost, a differentiable function of the logits."""
        self.check_shape(*logits_BLK.shape[1:])
        weight_SB = _joint(self.probabilities(logits_BLK))
        terms_B, first = [], 0
        for class_SBL, cost_SB in each_code(self, logits_BLK, cost):
            terms_B.append((weight_SB[first : first + len(class_SBL)] * cost_SB).sum(0))
            first += len(class_SBL)
        return Estimate(torch.stack(terms_B).sum(0).to(cost_SB.dtype))


def _joint(probs_BLK: Tensor) -> Tensor:
    """Return the probability (S, B) of every code, the first latent slowest: products, as logarithms would be -inf."""
    joint_SB = torch.ones_like(probs_BLK[:, :1, 0]).T
    for probs_BK in probs_BLK.unbind(1):
        joint_SB = (joint_SB.unsqueeze(1) * probs_BK.T).flatten(0, 1)
    return joint_SB
