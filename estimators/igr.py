"""The invertible Gaussian reparameterisation: K − 1 Gaussians of an encoder's own means and scales."""

import math
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from estimators.base import Pathwise, check_count
from estimators.gaussian import log_cdf, standard_normal
from estimators.gumbel import wide
from estimators.simplex import softmax

SMALLEST_SCALE = 1e-4
"""Standard deviations are larger than this, so that logits of ±1e4 divide nothing by 0."""
NODES_PER_CALL = 2**22
"""`class_logits` evaluates the integrands at that many points at a time, at least one latent's: bounded memory."""
BREAKS = (-6.0, -4.0, -2.5, -1.2, 0.0, 1.2, 2.5, 4.0, 6.0, 9.0)
"""Ends of the intervals of the quadrature, in standard deviations from the mean of each of the K − 1 Gaussians."""
GAUSS_LEGENDRE = (
    (-0.9061798459386640, -0.5384693101056831, 0.0, 0.5384693101056831, 0.9061798459386640),
    (0.2369268850561891, 0.4786286704993665, 0.5688888888888889, 0.4786286704993665, 0.2369268850561891),
)
"""Nodes and weights of the five-point rule on [−1, 1], for each of those intervals."""


def threshold(mean_BLJ: Tensor) -> Tensor:
    """Return c, without dimensions, with Φ(c)^(K−1) = 1/K: with probability 1/K none of K − 1 N(0, 1) exceeds it."""
    n_gaussians = mean_BLJ.shape[-1]
    c: Tensor = torch.special.ndtri(mean_BLJ.new_full((), (n_gaussians + 1) ** (-1 / n_gaussians)))
    return c


def moments(outputs_BLH: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations (B, L, K − 1) of an encoder's 2(K − 1) numbers, in float32 or wider.

    The scale is SMALLEST_SCALE more than a softplus that is nearly 1 at 0: an encoder that returns zeros is at the
    prior, no output overflows, and none has a vanishing logarithm. Raises ValueError for an odd number of outputs.
    """
    if outputs_BLH.shape[-1] % 2:
        raise ValueError(f"igr: expected 2(K − 1) numbers for each latent, got {outputs_BLH.shape[-1]}.")
    wide_BLH = wide(outputs_BLH)
    mean_BLJ, raw_BLJ = wide_BLH.chunk(2, dim=-1)
    unit = (1 - SMALLEST_SCALE) / math.log(2)
    return mean_BLJ, SMALLEST_SCALE - unit * F.logsigmoid(-raw_BLJ)


def argmax_law(mean_BLJ: Tensor, scale_BLJ: Tensor, c: Tensor) -> Tensor:
    """Return the log-probabilities (B, L, K) that u_k is the largest of u_1 … u_{K−1}, c; u_j ~ N(μ_j, σ_j²).

    P(K) = Π_j Φ((c − μ_j)/σ_j) and P(k) = ∫_c^∞ φ((x − μ_k)/σ_k)/σ_k Π_{j≠k} Φ((x − μ_j)/σ_j) dx, by Gauss–Legendre
    quadrature between the BREAKS of all the Gaussians together: each is smooth on the scale of these intervals, however
    different their scales. The error of P is below 1e-5; differentiable, the nodes being constants.
    """
    n_latents, n_gaussians = mean_BLJ.shape[1:]
    points_per_latent = n_gaussians * (n_gaussians * len(BREAKS) - 1) * len(GAUSS_LEGENDRE[0])
    examples_per_call = max(1, NODES_PER_CALL // max(1, n_latents * points_per_latent))
    parts = zip(*(torch.split(part, examples_per_call) for part in (mean_BLJ, scale_BLJ)), strict=True)
    return torch.cat([_argmax_law(mean, scale, c) for mean, scale in parts])


def _argmax_law(mean_BLJ: Tensor, scale_BLJ: Tensor, c: Tensor) -> Tensor:
    x_BLX, log_weight_BLX = _nodes(mean_BLJ.detach(), scale_BLJ.detach(), c)
    t_BLXJ = (x_BLX.unsqueeze(-1) - mean_BLJ.unsqueeze(-2)) / scale_BLJ.unsqueeze(-2)
    log_cdf_BLXJ = log_cdf(t_BLXJ)
    others_BLXJ = log_cdf_BLXJ.sum(-1, keepdim=True) - log_cdf_BLXJ
    log_density_BLXJ = -t_BLXJ.square() / 2 - math.log(2 * math.pi) / 2 - scale_BLJ.log().unsqueeze(-2)
    above_BLJ = (log_density_BLXJ + others_BLXJ + log_weight_BLX.unsqueeze(-1)).logsumexp(-2)
    none_BL1 = torch.special.log_ndtr((c - mean_BLJ) / scale_BLJ).sum(-1, keepdim=True)
    return torch.cat([above_BLJ, none_BL1], -1).log_softmax(-1)


def _nodes(mean_BLJ: Tensor, scale_BLJ: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the quadrature's nodes above c and the logarithms of their weights, (B, L, X) each."""
    places_G, weights_G = (mean_BLJ.new_tensor(numbers) for numbers in GAUSS_LEGENDRE)
    ends_BLJE = mean_BLJ.unsqueeze(-1) + scale_BLJ.unsqueeze(-1) * mean_BLJ.new_tensor(BREAKS)
    ends_BLE = ends_BLJE.flatten(-2).clamp(min=c).sort(-1).values
    half_BLE1 = ends_BLE.diff(dim=-1).unsqueeze(-1) / 2
    middle_BLE1 = (ends_BLE[..., 1:] + ends_BLE[..., :-1]).unsqueeze(-1) / 2
    log_weight_BLEG = (half_BLE1 * weights_G).clamp(min=torch.finfo(mean_BLJ.dtype).tiny).log()
    return (middle_BLE1 + half_BLE1 * places_G).flatten(-2), log_weight_BLEG.flatten(-2)


@final
class IGR(Pathwise):
    """Invertible Gaussian reparameterisation (IGR).

    K − 1 Gaussians go through softmax++, an invertible map onto the simplex, so that the KL of the relaxed codes to
    their prior is that of the Gaussians: analytic, where that of a Gumbel-Softmax is not.

    Approximates  ∇ E[f(D)]  with the pathwise gradient of  f(S),  S_k = e^{u_k/τ}/(δ + Σ_j e^{u_j/τ})  for k < K,
                  S_K = δ/(δ + Σ_j e^{u_j/τ}),  u_j = μ_j + σ_j N_j,  N iid N(0, 1),  D = onehot(argmax S).
    Requires      f differentiable and meaningful on soft codes; K >= 2; n_samples >= 1; tau > 0. The encoder gives
                  2(K − 1) numbers for each latent: the means, then what the scales are made of.
    Bias          the exact gradient of E[f(S)], not of E[f(D)]; falls as τ → 0, while the variance grows.
    Reference     Potapczynski, Loaiza-Ganem, Cunningham (2020), "Invertible Gaussian Reparameterization: Revisiting
                  the Gumbel-Softmax", arXiv:1912.09588, section 3: softmax++ and the KL.
    Departures    δ = e^{c/τ} with Φ(c)^{K−1} = 1/K, rather than a constant: at every tau the prior N(0, I) then gives
                  one-hot codes of the uniform law, the prior of every other estimator here. σ is a shifted softplus
                  with a floor, not an exponential. The law of the one-hot codes is computed by quadrature.
    """

    name = "igr"
    reference = "Potapczynski, Loaiza-Ganem, Cunningham (2020), arXiv:1912.09588"
    use_when = "as gumbel_softmax, with the KL of the relaxed code; twice the parameters, and it learns more slowly"
    relaxes = True
    shift_invariant = False
    tau: float

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError for one class: there are K − 1 Gaussians."""
        if n_categories < 2:
            raise ValueError(f"{self.name}: expected n_categories >= 2, got {n_categories}.")

    def n_outputs(self, n_categories: int) -> int:
        """Return 2(K − 1): a mean and a scale for each Gaussian."""
        return 2 * (n_categories - 1)

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return the log-probabilities (B, L, K) of the argmax of softmax++, in float32 or wider."""
        mean_BLJ, scale_BLJ = moments(logits_BLK)
        return argmax_law(mean_BLJ, scale_BLJ, threshold(mean_BLJ))

    def kl(self, logits_BLK: Tensor) -> Tensor:
        """Return the KL of the Gaussians to N(0, I), nats (B,): that of the soft codes, softmax++ being invertible."""
        mean_BLJ, scale_BLJ = moments(logits_BLK)
        return ((mean_BLJ.square() + scale_BLJ.square() - 1) / 2 - scale_BLJ.log()).sum((-1, -2))

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return soft codes."""
        mean_BLJ, scale_BLJ = moments(logits_BLK)
        u_SBLJ = mean_BLJ + scale_BLJ * standard_normal(mean_BLJ, self.n_samples)
        c_SBL1 = threshold(mean_BLJ).expand(*u_SBLJ.shape[:-1], 1)
        return softmax(torch.cat([u_SBLJ, c_SBL1], -1) / self.tau)
