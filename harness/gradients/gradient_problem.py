"""Fixed logits and a cost: the problem on which gradients are compared.

Letters: S samples, B examples, L latents, K classes, H numbers that an estimator asks for each latent (K for most),
N codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from estimators.base import CODES_PER_CALL, Cost
from estimators.gumbel import one_hot


@dataclass(frozen=True, eq=False)
class GradientProblem:
    """Fixed logits and a cost, whose mean is differentiated.

    context_BX   the data behind the logits, for estimators that use it
    code_costs   codes (N, L, K) -> their costs for every example (N, B), where that is cheaper than calling `cost`
    expectation  class logits (B, L, K) -> E[cost] (B,), differentiable, where it is known in closed form
    """

    logits_BLH: Tensor
    cost: Cost
    n_categories: int
    context_BX: Tensor | None = None
    code_costs: Callable[[Tensor], Tensor] | None = None
    expectation: Callable[[Tensor], Tensor] | None = None

    @property
    def n_latents(self) -> int:
        return self.logits_BLH.shape[1]

    @property
    def n_codes(self) -> int:
        return int(self.n_categories**self.n_latents)

    @cached_property
    def all_costs(self) -> Tensor:
        """The costs (N, B) of all codes, on the CPU; values only. Raises ValueError if one is not finite."""
        ask = self.code_costs or self._ask_cost
        like = self.logits_BLH.new_empty(self.n_categories)
        size = CODES_PER_CALL if self.code_costs else max(1, CODES_PER_CALL // max(1, len(self.logits_BLH)))
        with torch.no_grad():
            classes = torch.split(self.all_classes().to(self.logits_BLH.device), size)
            found = torch.cat([ask(one_hot(class_NL, like)).cpu() for class_NL in classes])
        if not found.isfinite().all():
            raise ValueError("diagnose: expected a finite cost of every code, got NaN or ∞.")
        return found

    def all_classes(self) -> Tensor:
        """Return all codes as class numbers (N, L), the first latent slowest."""
        place_L = self.n_categories ** torch.arange(self.n_latents - 1, -1, -1)
        return torch.arange(self.n_codes).unsqueeze(-1) // place_L % self.n_categories

    def _ask_cost(self, z_NLK: Tensor) -> Tensor:
        return self.cost(z_NLK.unsqueeze(1).expand(-1, len(self.logits_BLH), -1, -1))


def is_differentiable(problem: GradientProblem) -> bool:
    """Return whether the cost has a derivative in the code, as far as autograd can tell.

    A cost that cannot even take a code with a gradient, such as one that leaves torch, has none.
    """
    n_examples, n_latents = problem.logits_BLH.shape[:2]
    z_SBLK = problem.logits_BLH.new_zeros(1, n_examples, n_latents, problem.n_categories)
    z_SBLK[..., 0] = 1
    z_SBLK.requires_grad_()
    with torch.enable_grad():
        try:
            cost_SB = problem.cost(z_SBLK)
        except RuntimeError:
            problem.cost(z_SBLK.detach())  # raises if there is another reason
            return False
    return cost_SB.requires_grad and torch.autograd.grad(cost_SB.sum(), z_SBLK, allow_unused=True)[0] is not None
