"""Draws of an estimator at fixed logits, and the true gradient that they are compared with.

Letters: R replicas, J blocks, S samples, B examples, L latents, K classes, H numbers that an estimator asks for each
latent (K for most), N codes. Gradients are of the sum over examples of E[cost], with respect to the logits.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from estimators import Estimator, build
from estimators.base import CODES_PER_CALL, Cost, check_costs
from estimators.gumbel import log_prob, one_hot
from harness.gradients.quality import N_BLOCKS
from harness.training import seeding

WARM_UP, WARM_UP_LR = 400, 0.02
"""Before it is measured, an estimator with a state of its own is called so often in training mode at the same logits.
The learning rate of its parameters starts at WARM_UP_LR and falls to `control_lr`, but never below that."""
ROUNDING = 16
"""Errors of fewer units in the last place, of costs and gradients, count as rounding."""


class NotFiniteError(ValueError):
    """A gradient that is NaN or ∞. Only this estimator is at fault: the others can still be measured."""


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
    _enumerated: dict[str, Tensor] = field(default_factory=dict)

    @property
    def n_latents(self) -> int:
        return self.logits_BLH.shape[1]

    @property
    def n_codes(self) -> int:
        return int(self.n_categories**self.n_latents)

    def all_costs(self) -> Tensor:
        """Return the costs (N, B) of all codes, on the CPU, evaluated once; values only.

        Raises ValueError if one is not finite.
        """
        if "costs" not in self._enumerated:
            ask = self.code_costs or self._ask_cost
            like = self.logits_BLH.new_empty(self.n_categories)
            size = CODES_PER_CALL if self.code_costs else max(1, CODES_PER_CALL // max(1, len(self.logits_BLH)))
            with torch.no_grad():
                classes = torch.split(self.all_classes().to(self.logits_BLH.device), size)
                found = torch.cat([ask(one_hot(class_NL, like)).cpu() for class_NL in classes])
            if not found.isfinite().all():
                raise ValueError("diagnose: expected a finite cost of every code, got NaN or ∞.")
            self._enumerated["costs"] = found
        return self._enumerated["costs"]

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
        control_loss = estimator(logits_BLH, problem.cost, problem.context_BX).control_loss
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


@dataclass(frozen=True)
class Reference:
    """The unbiased estimator whose long average is the truth where there are too many codes to enumerate."""

    name: str = "rloo"
    n_samples: int = 32
    draws_per_block: int = 64


def truth(
    problem: GradientProblem, class_logits: Callable[[Tensor], Tensor], max_codes: int, reference: Reference
) -> Tensor:
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
        found = _average(problem, at, reference)
    if class_BLK is not leaf:
        found = torch.stack([torch.autograd.grad(class_BLK, leaf, g, retain_graph=True)[0] for g in found])
    return found.expand(N_BLOCKS, -1, -1, -1)


def _exact(problem: GradientProblem, class_BLK: Tensor) -> Tensor:
    leaf = class_BLK.clone().requires_grad_()
    if problem.expectation is not None:
        return torch.autograd.grad(problem.expectation(leaf).sum(), leaf)[0]
    cost_NB, class_NL = problem.all_costs().to(leaf), problem.all_classes()
    total = torch.zeros_like(leaf)
    size = max(1, CODES_PER_CALL // max(1, len(leaf)))
    for cost_nB, class_nL in zip(torch.split(cost_NB, size), torch.split(class_NL, size), strict=True):
        class_nBL = class_nL.unsqueeze(1).expand(-1, len(leaf), -1)
        total += torch.autograd.grad((log_prob(leaf, class_nBL).exp() * cost_nB).sum(), leaf)[0]
    return total


def _average(problem: GradientProblem, class_BLK: Tensor, reference: Reference) -> Tensor:
    estimator = build(reference.name, n_samples=reference.n_samples)
    at = GradientProblem(class_BLK.to(problem.logits_BLH), problem.cost, problem.n_categories)
    sums = [sum_of_draws(estimator, at, reference.draws_per_block).gradient_BLH for _ in range(N_BLOCKS)]
    return torch.stack(sums) / reference.draws_per_block


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
