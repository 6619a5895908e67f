"""Checks of gradients: finite, unbiased if declared, and ordinary for the decoder."""

import copy
from itertools import product

import torch
from torch import Tensor

from estimators.base import Estimator
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    Shape,
    bias_scores,
    call,
    cost_for,
    cubic_cost,
    example_shape,
    example_weights,
    logits_for,
    prepared,
    require,
    run,
    seeded,
    z_scores,
)

N_TRIES = 16
"""Calls in which each latent must get a gradient. That chance hides one of two in all of 16 has probability 3e-5."""


def check_gradient(estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None) -> str:
    """Check that cost and gradient are finite, and that each latent has a gradient in one of N_TRIES calls.

    All are calls of one copy: a warm-up may start at 0, and an estimator may choose other latents in each call.
    """
    logits_BLK, cost = logits_for(estimator, 64, model).to(dtype), cost_for(estimator, model)
    own, reached = prepared(estimator, logits_BLK, model), set[tuple[bool, ...]]()
    for seed in range(N_TRIES):
        cost_B, gradient_BLK = call(own, logits_BLK, cost, seed)
        for what, tensor in (("cost", cost_B), ("gradient", gradient_BLK)):
            require(estimator, bool(tensor.isfinite().all()), f"a finite {what}", "NaN or ∞")
        latents = tuple((gradient_BLK != 0).any(-1).any(0).tolist())
        reached |= {latents} if any(latents) else set()
        if all(latents) or len(reached) > 1:
            return "finite, not 0"
    first = next(iter(reached), (False,)).index(False)
    require(
        estimator, False, "a gradient that reaches the logits", f"zeros at latent {first} in each of {N_TRIES} calls"
    )
    return ""


def check_logit_gradient(estimator: Estimator) -> str:
    """Check that the gradient of the logits is finite and, under shift invariance, sums to 0 over classes."""
    check_gradient(estimator)
    _, gradient_BLK = run(estimator, logits_for(estimator, 64), cost_for(estimator))
    if not estimator.shift_invariant:
        return "finite; not shift-invariant, as declared"
    largest = gradient_BLK.sum(-1).abs().max().item()
    require(estimator, largest < 1e-9, "gradients that sum to 0 over classes", largest)
    return "finite, sums to 0 over classes"


def check_decoder_gradient(estimator: Estimator) -> str:
    """Check that the decoder gets the derivative of the reported cost for fixed noise, by central differences."""
    weights_LK = example_weights(*example_shape(estimator)).requires_grad_()
    logits_BLK, step = logits_for(estimator).requires_grad_(), 1e-5
    own = prepared(estimator, logits_BLK)

    def total(weights_LK: Tensor) -> Tensor:
        with seeded(0, logits_BLK):
            return copy.deepcopy(own)(logits_BLK, cubic_cost(weights_LK)).cost_B.sum()

    (gradient_LK,) = torch.autograd.grad(total(weights_LK), weights_LK)
    with torch.no_grad():
        for index in product(*map(range, weights_LK.shape)):
            nudge_LK = torch.zeros_like(weights_LK)
            nudge_LK[index] = step
            slope = (total(weights_LK + nudge_LK) - total(weights_LK - nudge_LK)) / (2 * step)
            error = (slope - gradient_LK[index]).abs().item()
            require(estimator, error < 1e-6 * (1 + abs(slope.item())), f"decoder gradient {slope}", gradient_LK[index])
    return "ordinary backpropagation"


def check_constant_cost(estimator: Estimator) -> str:
    """Check that a cost that does not depend on the code gives a gradient of mean zero."""
    if estimator.objective == "bound":
        return "does not apply: the bound holds the KL, which is not constant"
    logits_NLK = logits_for(estimator)[0].expand(N_REPLICAS, -1, -1)
    _, gradient_NLK = run(estimator, logits_NLK, lambda z_SBLK: 3.0 + 0.0 * z_SBLK.sum((-1, -2)))
    largest = z_scores(gradient_NLK, torch.zeros_like(gradient_NLK[0])).abs().max().item()
    require(estimator, largest < MAX_Z, f"mean zero gradient of a constant, |z| < {MAX_Z}", largest)
    return f"mean zero, |z| = {largest:.1f}"


def check_bias(estimator: Estimator) -> str:
    """Check that mean cost and mean gradient of an unbiased estimator equal enumeration, |z| < MAX_Z."""
    cost_z, gradient_z = (scores.abs().max().item() for scores in bias_scores(estimator))
    if not estimator.unbiased:
        return f"gradient |z| = {gradient_z:.1f}; declared biased"
    require(estimator, cost_z < MAX_Z, f"unbiased cost, |z| < {MAX_Z}", f"{cost_z:.1f}")
    require(estimator, gradient_z < MAX_Z, f"unbiased gradient, |z| < {MAX_Z}", f"{gradient_z:.1f}")
    return f"unbiased, cost |z| = {cost_z:.1f}, gradient |z| = {gradient_z:.1f}"
