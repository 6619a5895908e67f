"""What estimators are measured against: fixed logits, a cost that hides nothing, and its exact gradient.

Nothing here knows an estimator's formula; enumeration is by a plain loop, independent of exact.py.
"""

import math
from itertools import product

import torch
from torch import Tensor

from estimators.base import Cost, Estimator

N_REPLICAS = 20_000
"""Draws of a statistical check, fixed beforehand. A bias of 4.7 % of the standard deviation of one draw is then caught
with probability .95: (MAX_Z + 1.645)/√20 000 = .047."""
MAX_Z = 5.0
"""Largest |z| of an unbiased estimator. Of six gradient entries, one exceeds it by chance 3 times in a million."""


def example_logits(n_examples: int = 4, n_latents: int = 2, n_categories: int = 3) -> Tensor:
    """Return fixed float64 logits (B, L, K), different for each example, latent and class."""
    count = n_examples * n_latents * n_categories
    return torch.linspace(0, count, count, dtype=torch.float64).sin().view(n_examples, n_latents, n_categories)


def example_weights(n_latents: int = 2, n_categories: int = 3) -> Tensor:
    """Return the decoder of `cubic_cost`: fixed float64 weights (L, K)."""
    count = n_latents * n_categories
    return torch.linspace(0.3, 4.3, count, dtype=torch.float64).cos().view(n_latents, n_categories)


def cubic_cost(weights_LK: Tensor) -> Cost:
    """Return f(z) = (1 + Σ w z)³: neither linear nor quadratic, and every latent interacts with every other."""
    return lambda z_SBLK: (1 + (z_SBLK * weights_LK.to(z_SBLK.dtype)).sum((-1, -2))) ** 3


def run(estimator: Estimator, logits_BLK: Tensor, cost: Cost, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return cost_B and its gradient w.r.t. the logits, with the noise of `seed`; the generator is restored."""
    leaf_BLK = logits_BLK.detach().clone().requires_grad_()
    with torch.random.fork_rng(devices=[leaf_BLK.device] if leaf_BLK.is_cuda else []):
        torch.manual_seed(seed)
        cost_B = estimator(leaf_BLK, cost).cost_B
    (gradient_BLK,) = torch.autograd.grad(cost_B.sum(), leaf_BLK)
    return cost_B.detach(), gradient_BLK


def exact_gradient(logits_LK: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """Return E[cost(z)] and its gradient w.r.t. the logits of one example, by enumeration, one code at a time."""
    leaf_LK = logits_LK.detach().clone().requires_grad_()
    probs_LK = leaf_LK.softmax(-1)
    n_latents, n_categories = logits_LK.shape
    expected = logits_LK.new_zeros(())
    for code in product(range(n_categories), repeat=n_latents):
        z_LK = torch.nn.functional.one_hot(torch.tensor(code), n_categories).to(logits_LK)
        prob = torch.stack([probs_LK[latent, category] for latent, category in enumerate(code)]).prod()
        expected = expected + prob * cost(z_LK[None, None])[0, 0].detach()
    (gradient_LK,) = torch.autograd.grad(expected, leaf_LK)
    return expected.detach(), gradient_LK


def z_scores(draws_NX: Tensor, expected_X: Tensor) -> Tensor:
    """Return (mean − expected)/standard error along the first dimension; rounding alone scores 0."""
    error_X = draws_NX.std(0) / math.sqrt(len(draws_NX))
    return (draws_NX.mean(0) - expected_X) / error_X.clamp(min=1e-9)


def bias_scores(estimator: Estimator, cost: Cost | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return z-scores of the mean cost (a scalar) and of the mean gradient (L, K) against enumeration.

    All N_REPLICAS draws are one batch of the same logits. The default cost is `cubic_cost(example_weights())`.
    """
    cost = cost or cubic_cost(example_weights())
    logits_LK = example_logits()[0]
    cost_N, gradient_NLK = run(estimator, logits_LK.expand(N_REPLICAS, -1, -1), cost, seed)
    expected, gradient_LK = exact_gradient(logits_LK, cost)
    return z_scores(cost_N, expected), z_scores(gradient_NLK, gradient_LK)
