"""The true gradient of a problem: in closed form, by enumeration, or as a long average.

Letters: J blocks, B examples, L latents, K classes, H numbers that an estimator asks for each latent (K for most),
N codes. Gradients are of the sum over examples of E[cost], with respect to the logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from estimators import build
from estimators.base import CODES_PER_CALL
from estimators.gumbel import log_prob
from harness.gradients.draws import sum_of_draws
from harness.gradients.gradient_problem import GradientProblem
from harness.gradients.quality import N_BLOCKS

REFERENCE, N_SAMPLES = "rloo", 32
"""The unbiased estimator whose long average is the truth where there are too many codes to enumerate."""
DRAWS_PER_BLOCK = 64


def true_gradient(problem: GradientProblem, class_logits: Callable[[Tensor], Tensor], max_codes: int) -> Tensor:
    """Return block means (J, B, L, H) of the true gradient of E[cost] under the law of `class_logits`.

    All blocks are equal if it is exact: in closed form, or by enumeration of at most `max_codes` codes. Otherwise they
    are averages of the reference estimator.
    """
    leaf = problem.logits_BLH.detach().cpu().double().requires_grad_()
    with torch.enable_grad():
        class_BLK = class_logits(leaf)
    at = class_BLK.detach()
    if problem.expectation is not None or problem.n_codes <= max_codes:
        found = _exact(problem, at).unsqueeze(0)
    else:
        found = _average(problem, at)
    if class_BLK is not leaf:
        found = torch.stack([torch.autograd.grad(class_BLK, leaf, g, retain_graph=True)[0] for g in found])
    return found.expand(N_BLOCKS, -1, -1, -1)


def _exact(problem: GradientProblem, class_BLK: Tensor) -> Tensor:
    leaf = class_BLK.clone().requires_grad_()
    if problem.expectation is not None:
        return torch.autograd.grad(problem.expectation(leaf).sum(), leaf)[0]
    cost_NB, class_NL = problem.all_costs.to(leaf), problem.all_classes()
    total = torch.zeros_like(leaf)
    size = max(1, CODES_PER_CALL // max(1, len(leaf)))
    for cost_nB, class_nL in zip(torch.split(cost_NB, size), torch.split(class_NL, size), strict=True):
        class_nBL = class_nL.unsqueeze(1).expand(-1, len(leaf), -1)
        total += torch.autograd.grad((log_prob(leaf, class_nBL).exp() * cost_nB).sum(), leaf)[0]
    return total


def _average(problem: GradientProblem, class_BLK: Tensor) -> Tensor:
    estimator = build(REFERENCE, n_samples=N_SAMPLES)
    at = GradientProblem(class_BLK.to(problem.logits_BLH), problem.cost, problem.n_categories)
    sums = [sum_of_draws(estimator, at, DRAWS_PER_BLOCK).gradient_BLH for _ in range(N_BLOCKS)]
    return torch.stack(sums) / DRAWS_PER_BLOCK
