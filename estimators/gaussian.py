"""Gaussian noise in the place of Gumbel noise, and the law of the argmax that it gives."""

import math
from typing import final

import torch
from torch import Tensor

from estimators.base import Pathwise, check_count
from estimators.gumbel import wide_dtype
from estimators.simplex import softmax

GRID = (-10.0, 8.0)
"""First and last node of the trapezoid rule, relative to the largest logit. See `argmax_law`."""


def standard_normal(like: Tensor, n_samples: int) -> Tensor:
    """Return noise of shape (n_samples, *like.shape), iid N(0, 1), in float32 or wider."""
    dtype = wide_dtype(like)
    return torch.randn((n_samples, *like.shape), dtype=dtype, device=like.device)


def log_cdf(x: Tensor) -> Tensor:
    """Return log Φ(x), no smaller than the logarithm of the smallest normal number of the dtype.

    `torch.special.log_ndtr` has no such floor, and takes three times as long on the CPU.
    """
    return (0.5 * torch.erfc(x * -math.sqrt(0.5))).clamp(min=torch.finfo(x.dtype).tiny).log()


def argmax_law(logits_BLK: Tensor) -> Tensor:
    """Return log P(argmax_j(θ_j + N_j) = k), N iid N(0, 1), in float32 or wider; differentiable.

    P(k) = ∫ φ(x − θ_k) Π_{j≠k} Φ(x − θ_j) dx by the trapezoid rule, on one grid for all classes of a latent. For an
    analytic integrand that vanishes at both ends the rule converges exponentially fast; the more classes, the narrower
    the integrand. In float64 the error of P is below 1e-8 for K <= 100, that of log P below 1e-5 where P > 1e-18; a
    smaller P remains finite and positive, but is too small.
    """
    dtype = wide_dtype(logits_BLK)
    (first, last), step = GRID, 0.4 if logits_BLK.shape[-1] <= 10 else 0.25
    grid_X = torch.linspace(first, last, round((last - first) / step) + 1, dtype=dtype, device=logits_BLK.device)
    wide_BLK = logits_BLK.to(dtype)
    below_BLK = wide_BLK - wide_BLK.amax(-1, keepdim=True).detach()
    x_BLXK = grid_X.unsqueeze(-1) - below_BLK.unsqueeze(-2)
    log_cdf_BLXK = log_cdf(x_BLXK)
    others_BLXK = log_cdf_BLXK.sum(-1, keepdim=True) - log_cdf_BLXK
    return (others_BLXK - x_BLXK.square() / 2).logsumexp(-2).log_softmax(-1)


@final
class GaussianSoftmax(Pathwise):
    """Gaussian-Softmax relaxation.

    Gumbel-Softmax with normal noise. Nothing ties the noise of a relaxation to the Gumbel law; what changes is the law
    of the argmax, which is then the probit model of choice, not softmax(θ).

    Approximates  ∇ E[f(D)]  with  (1/τ) J(S) ∇f(S),  S = softmax((θ + N)/τ),  N iid N(0, 1),  J(p) = diag(p) − p pᵀ,
                  D = onehot(argmax S),  P(D = k) = ∫ φ(x − θ_k) Π_{j≠k} Φ(x − θ_j) dx.
    Requires      f differentiable and meaningful on soft codes; n_samples >= 1; tau > 0.
    Bias          the exact gradient of E[f(S)], not of E[f(D)]; falls as τ → 0, while the variance grows.
    Reference     Potapczynski, Loaiza-Ganem, Cunningham (2020), "Invertible Gaussian Reparameterization: Revisiting
                  the Gumbel-Softmax", arXiv:1912.09588: Gaussian noise in a relaxation; Thurstone (1927), "A law of
                  comparative judgment", Psychological Review 34: the law of the argmax.
    Departures    no paper defines this very estimator: unlike in Potapczynski et al., all K classes get noise, of unit
                  variance, and the map is the plain softmax. `class_logits` computes the law by quadrature.
    """

    name = "gaussian_softmax"
    reference = "after Potapczynski, Loaiza-Ganem, Cunningham (2020), arXiv:1912.09588; Thurstone (1927)"
    use_when = "to see how much the Gumbel noise matters; its codes follow the probit law, so the KL costs a quadrature"
    relaxes = True
    tau: float

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return the log-probabilities of the argmax of θ + N, in float32 or wider."""
        return argmax_law(logits_BLK)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return soft codes."""
        return softmax((logits_BLK + standard_normal(logits_BLK, self.n_samples)) / self.tau)
