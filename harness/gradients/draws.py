"""Draws of an estimator at fixed logits, in blocks.

Letters: R replicas, J blocks, S samples, B examples, L latents, K classes, H numbers that an estimator asks for each
latent (K for most), N codes. Gradients are of the sum over examples of E[cost], with respect to the logits.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators import Estimator
from estimators.base import CODES_PER_CALL, Cost, check_costs
from harness.gradients.gradient_problem import GradientProblem
from harness.gradients.quality import N_BLOCKS
from harness.training import seeding

WARM_UP, WARM_UP_LR = 400, 0.02
"""Before it is measured, an estimator with a state of its own is called so often in training mode at the same logits.
The learning rate of its parameters starts at WARM_UP_LR and falls to `control_lr`, but never below that."""
ROUNDING = 16
"""Errors of fewer units in the last place, of costs and gradients, count as rounding."""


class NotFiniteError(ValueError):
    """A gradient that is NaN or ∞. Only this estimator is at fault: the others can still be measured."""


def prepared_copy(estimator: Estimator, problem: GradientProblem, *, warm_up: bool = True) -> Estimator:
    """Return a copy to be measured. Its own parameters and running state, if it has any, are warmed up."""
    estimator = copy.deepcopy(estimator)
    if not warm_up:
        return estimator
    n_context = 0 if problem.context_BX is None else problem.context_BX.shape[-1]
    estimator.prepare(problem.n_latents, problem.n_categories, n_context)
    estimator.to(problem.logits_BLH.device)
    if estimator.state_dict():
        _warm_up(estimator, problem)
    return estimator


def _warm_up(estimator: Estimator, problem: GradientProblem) -> None:
    estimator.train()
    optimizer = estimator.control_optimizer()
    for step in range(WARM_UP):
        logits_BLH = problem.logits_BLH.detach().requires_grad_()
        estimate = estimator(logits_BLH, problem.cost, problem.context_BX)
        control_loss = estimate.control_loss
        if estimate.cost_B.requires_grad and not list(estimator.parameters()):
            torch.autograd.grad(estimate.cost_B.sum(), logits_BLH)  # some running state moves in the backward pass
        if optimizer is not None and control_loss is not None:
            for group in optimizer.param_groups:
                group["lr"] = max(estimator.control_lr, WARM_UP_LR * (1 - step / WARM_UP))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(control_loss, inputs=list(estimator.parameters()))
            optimizer.step()


def draws_per_call(estimator: Estimator, problem: GradientProblem) -> int:
    """Return how many draws to make at once, so that the cost sees about CODES_PER_CALL codes."""
    codes_each = len(problem.logits_BLH) * estimator.n_cost_evals(problem.n_latents, problem.n_categories)
    return max(1, CODES_PER_CALL // max(1, codes_each))


@dataclass
class DrawSums:
    """Sums over independent draws, float64 on the CPU: of gradients (B, L, H), their squares, and the squares of costs.

    `eps` are the units in the last place of gradient and cost.
    """

    gradient_BLH: Tensor
    gradient_square: Tensor
    cost_square: Tensor
    eps: tuple[float, float] = (0.0, 0.0)


def sum_of_draws(estimator: Estimator, problem: GradientProblem, n_draws: int) -> DrawSums:
    """Return the sums over `n_draws` independent draws.

    Replicas are further examples: (R·B, L, H). Raises ValueError if the cost is not finite or has a wrong shape, and
    NotFiniteError if the gradient is not finite.
    """
    zero = torch.zeros((), dtype=torch.float64)
    sums = DrawSums(torch.zeros(problem.logits_BLH.shape, dtype=torch.float64), zero.clone(), zero.clone())
    done = 0
    while done < n_draws:
        n = min(n_draws - done, draws_per_call(estimator, problem))
        leaf = problem.logits_BLH.detach().repeat(n, 1, 1).requires_grad_()
        context = None if problem.context_BX is None else problem.context_BX.repeat(n, 1)
        with torch.enable_grad():
            cost_B = estimator(leaf, _for_replicas(problem.cost, n, estimator.name), context).cost_B
        (gradient,) = torch.autograd.grad(cost_B.sum(), leaf)
        if not gradient.isfinite().all():
            raise NotFiniteError("its gradient is NaN or ∞ at these logits")
        sums.gradient_BLH += gradient.view(n, *problem.logits_BLH.shape).sum(0).cpu()
        sums.gradient_square += gradient.double().square().sum().cpu()
        sums.cost_square += cost_B.detach().double().square().sum().cpu()
        sums.eps = (torch.finfo(gradient.dtype).eps, torch.finfo(cost_B.dtype).eps)
        done += n
    return sums


def _for_replicas(cost: Cost, n_replicas: int, name: str) -> Cost:
    """Return the cost of R replicas of a batch, (S, R·B), made of the cost of the batch, which sees (S·R, B)."""

    def for_replicas(z_SBLK: Tensor) -> Tensor:
        n_samples, n_examples = z_SBLK.shape[0], z_SBLK.shape[1] // n_replicas
        by_replica = z_SBLK.reshape(n_samples * n_replicas, n_examples, *z_SBLK.shape[2:])
        cost_SB = check_costs(name, cost(by_replica), by_replica.shape[:2])
        if not torch.isfinite(cost_SB.detach()).all():
            raise ValueError(f"{name}: expected a finite cost of every code, got NaN or ∞.")
        return cost_SB.reshape(n_samples, n_replicas * n_examples)

    return for_replicas


@dataclass(frozen=True, eq=False)
class Draws:
    """Means of J blocks of draws, float64, and the mean square of one draw of the whole batch.

    `noisy`: whether draws differ. `rounding`: the largest length, per example, of an error of rounding. `seconds`: the
    time of a draw, forward and backward.
    """

    blocks_JBLH: Tensor
    mean_square: float
    draws_per_block: int
    noisy: bool
    rounding: float
    seconds: float


def block_means(estimator: Estimator, problem: GradientProblem, draws_per_block: int) -> Draws:
    """Return N_BLOCKS block means of independent draws. An estimator without noise is called for one block only.

    It has no noise if two draws are equal and torch's generator is untouched. One of the two is not enough: codes are
    discrete and often equal, and a plug-in may take its noise from elsewhere.
    """
    estimator.eval()
    device = problem.logits_BLH.device
    before = seeding.noise_state(device)
    first, second = (sum_of_draws(estimator, problem, 1) for _ in range(2))
    untouched = all(torch.equal(one, other) for one, other in zip(before, seeding.noise_state(device), strict=True))
    noisy = not (untouched and torch.equal(first.gradient_BLH, second.gradient_BLH))
    size = (
        draws_per_block if noisy else min(draws_per_block, draws_per_call(estimator, problem))
    )  # the same calls are timed
    start = time.perf_counter()
    blocks = [sum_of_draws(estimator, problem, size) for _ in range(N_BLOCKS if noisy else 1)]
    seconds = (time.perf_counter() - start) / (len(blocks) * size)  # a draw ends on the CPU: nothing is pending
    if not noisy:
        blocks, size = [first], 1
    means_JBLH = torch.stack([each.gradient_BLH for each in blocks]) / size
    gradient_square, cost_square = (
        sum(getattr(each, name).item() for each in blocks) / (len(blocks) * size)
        for name in ("gradient_square", "cost_square")
    )
    eps_gradient, eps_cost = blocks[0].eps
    per_example = math.sqrt(max(1, len(problem.logits_BLH)))
    rounding = ROUNDING * (eps_gradient * math.sqrt(gradient_square) + eps_cost * math.sqrt(cost_square)) / per_example
    return Draws(means_JBLH.expand(N_BLOCKS, -1, -1, -1), gradient_square, draws_per_block, noisy, rounding, seconds)


def gram(blocks_JP: Tensor, truth_JP: Tensor) -> Tensor:
    """Return the inner products (2J, 2J), float64, that `harness.gradients.quality` works on."""
    both = torch.cat([blocks_JP, truth_JP]).double()
    return both @ both.T


def norm(truth_JBLH: Tensor) -> float:
    """Return the length of the true gradient, per example; that of the mean of the blocks, if it is an average."""
    return float(scaled(truth_JBLH.double()).mean(0).norm())


def scaled(blocks_JBLH: Tensor) -> Tensor:
    """Return blocks (J, P) whose squared norms are means over examples."""
    return blocks_JBLH.flatten(1) / math.sqrt(max(1, blocks_JBLH.shape[1]))
