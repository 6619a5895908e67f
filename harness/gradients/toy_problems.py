"""Small problems whose true gradient is known in closed form: the toys of the literature on discrete gradients.

Letters: S samples, B points, L latents, K classes. Each toy is a cost and its exact expectation under independent
categorical variables; both are differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from harness.gradients.gradient_problem import GradientProblem

N_POINTS = 8
"""Logits at which each toy is measured: independent draws from N(0, 1), the same ones each time."""


@dataclass(frozen=True)
class Toy:
    """A cost (S, B, L, K) -> (S, B), its mean for class probabilities (B, L, K) -> (B,), and its source."""

    heading: str  # of a narrow column
    meaning: str
    n_latents: int
    n_categories: int
    cost: Callable[[Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]

    def problem(self, n_outputs: int) -> GradientProblem:
        """Return the problem at N_POINTS fixed logits (float64), for estimators that take `n_outputs` per variable."""
        generator = torch.Generator().manual_seed(0)
        logits_BLH = torch.randn(N_POINTS, self.n_latents, n_outputs, generator=generator, dtype=torch.float64)
        return GradientProblem(
            logits_BLH,
            self.cost,
            self.n_categories,
            expectation=lambda class_BLK: self.mean(class_BLK.softmax(-1)),
        )


def _bernoulli(target: float, source: str) -> Toy:
    def cost(z_SBLK: Tensor) -> Tensor:
        return (z_SBLK[..., 0, 1] - target) ** 2

    def mean(probs_BLK: Tensor) -> Tensor:
        return probs_BLK[:, 0, 0] * target**2 + probs_BLK[:, 0, 1] * (1 - target) ** 2

    return Toy(
        f"b {target:.3g}".replace("0.", "."),
        f"E (b − {target})² for one binary variable b ({source}).",
        1,
        2,
        cost,
        mean,
    )


def _norm(power: float, n_latents: int = 128, target: float = 0.45) -> Toy:
    def cost(z_SBLK: Tensor) -> Tensor:
        return (z_SBLK[..., 1] - target).abs().pow(power).mean(-1)

    def mean(probs_BLK: Tensor) -> Tensor:
        values_K = torch.tensor([target, 1 - target], dtype=probs_BLK.dtype).pow(power)
        return (probs_BLK @ values_K).mean(-1)

    meaning = f"E ‖b − {target}‖ₚᵖ / {n_latents}, p = {power:g}, for {n_latents} binary variables b (Liu et al. 2023)."
    return Toy(f"p = {power:g}", meaning, n_latents, 2, cost, mean)


def _simplex() -> Toy:
    place_K = torch.arange(3, dtype=torch.float64)
    Q_KK = torch.exp(-2 * (place_K[:, None] - place_K).abs())

    def cost(z_SBLK: Tensor) -> Tensor:
        difference = z_SBLK[..., 0, :] - 1 / 3
        return ((difference @ Q_KK.to(difference.dtype)) * difference).sum(-1)

    def mean(probs_BLK: Tensor) -> Tensor:
        return probs_BLK[:, 0] @ cost(torch.eye(3, dtype=probs_BLK.dtype)[:, None, None])[:, 0]

    return Toy(
        "simplex",
        "E (z − c)ᵀ Q (z − c), Qᵢⱼ = exp(−2|i − j|), c = 1/3, one variable of three classes.",
        1,
        3,
        cost,
        mean,
    )


def _quadratic(n_latents: int = 3, n_categories: int = 4) -> Toy:
    n_entries = n_latents * n_categories
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(n_entries, n_entries, generator=generator, dtype=torch.float64)
    b = torch.randn(n_entries, generator=generator, dtype=torch.float64)

    def cost(z_SBLK: Tensor) -> Tensor:
        z = z_SBLK.flatten(-2)
        return ((z @ A.to(z.dtype)) * z).sum(-1) + z @ b.to(z.dtype)

    def mean(probs_BLK: Tensor) -> Tensor:
        """E zᵀAz = Σ A ∘ E zzᵀ: π πᵀ between variables, diag(π) within one."""
        probs = probs_BLK.flatten(-2)
        variable = torch.arange(n_entries) // n_categories
        between = (variable[:, None] != variable).to(probs)
        second = probs[:, :, None] * probs[:, None, :] * between + torch.diag_embed(probs)
        expected: Tensor = (second * A.to(probs.dtype)).sum((-1, -2)) + probs @ b.to(probs.dtype)
        return expected

    meaning = f"E zᵀAz + bᵀz, A and b from N(0, 1), {n_latents} variables of {n_categories} classes that interact."
    return Toy("quad.", meaning, n_latents, n_categories, cost, mean)


TOYS: Mapping[str, Toy] = MappingProxyType(
    {
        "bernoulli-0.45": _bernoulli(0.45, "Tucker et al. 2017"),
        "bernoulli-0.499": _bernoulli(0.499, "Grathwohl et al. 2018"),
        "norm-1.5": _norm(1.5),
        "norm-2": _norm(2.0),
        "norm-3": _norm(3.0),
        "simplex": _simplex(),
        "quadratic": _quadratic(),
    }
)
"""Every toy by name, from one binary variable to variables that interact."""
