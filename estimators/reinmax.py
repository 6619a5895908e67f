"""ReinMax and its relatives: second-order accurate, from one evaluation of the cost at a one-hot code."""

from typing import final

import torch
from torch import Tensor

from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gumbel import one_hot, sample_classes, wide
from estimators.gumbel_rao import rao_surrogate
from estimators.simplex import softmax, softmax_slope


def _score_product(z_SBLK: Tensor, probs_BLK: Tensor, logits_BLK: Tensor) -> Tensor:
    """Return (D − π)(D − π)ᵀ · logits: linear in the logits, with D and π constants."""
    score_SBLK = (z_SBLK - probs_BLK).detach()
    return score_SBLK * (score_SBLK * logits_BLK).sum(-1, keepdim=True)


@final
class ReinMax(Pathwise):
    """ReinMax.

    Half the difference f(D) − f(other) comes from the slope at D and half from the slope at the other end, as in Heun's
    method; straight-through is the Euler method.

    Approximates  ∇ E[f(D)]  with  2 J(½(π_τ + D)) ∇f(D) − ½ J(π) ∇f(D),  D ~ Cat(π),  π = softmax(θ),
                  π_τ = softmax(θ/τ),  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; n_samples >= 1; tau > 0, and the paper advises tau >= 1.
    Bias          none if tau = 1 and f is quadratic in each latent, the others held fixed; otherwise f's third
                  derivatives. Any other tau biases it even where f is linear.
    Reference     Liu, Dong, Liu, Yu, Gao (2023), "Bridging Discrete and Backpropagation: Straight-Through and Beyond",
                  arXiv:2304.08612, section on ReinMax and its algorithm.
    Departures    none. The Jacobian is taken at ½(π_τ + D) itself; no logarithm of it is needed. tau, which only moves
                  that point, receives no gradient where it is learned.
    """

    name = "reinmax"
    reference = "Liu, Dong, Liu, Yu, Gao (2023), arXiv:2304.08612"
    use_when = "first choice if the cost needs one-hot codes and is differentiable, and straight_through is too biased"
    relaxes = False
    tau: float | Tensor

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with twice the gradient half-way to the softmax, less half that of the softmax."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        wide_BLK = wide(logits_BLK)
        middle_SBLK = (softmax(wide_BLK.detach() / self.tau) + z_SBLK) / 2
        slope_BLK = softmax_slope(softmax(wide_BLK.detach()), wide_BLK)
        surrogate_SBLK = 2 * softmax_slope(middle_SBLK, wide_BLK) - slope_BLK / 2
        fixed = (logits_BLK, self.tau) if isinstance(self.tau, Tensor) else (logits_BLK,)
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype), *fixed, name=self.name)


@final
class ZGR(Pathwise):
    """ZGR, the zero-temperature limit of Gumbel-Rao.

    The average of straight-through at tau = 1 and DARN: what Gumbel-Rao tends to as tau falls, in closed form.

    Approximates  ∇ E[f(D)]  with  ½ [J(π) + (D − π)(D − π)ᵀ] ∇f(D),  D ~ Cat(π),  π = softmax(θ),
                  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; n_samples >= 1.
    Bias          none if f is quadratic in each latent, the others held fixed; otherwise f's third derivatives. The
                  same numbers as reinmax at tau = 1, sample by sample.
    Reference     Shekhovtsov (2023), "Cold Analysis of Rao-Blackwellized Straight-Through Gumbel-Softmax Gradient
                  Estimator", ICML 2023, PMLR 202:30931–30955, section on the zero-temperature limit.
    Departures    none.
    """

    name = "zgr"
    reference = "Shekhovtsov (2023), ICML"
    use_when = "as reinmax at tau = 1, without a temperature to tune"
    relaxes = False

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the mean of the gradients of straight-through and DARN."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        wide_BLK = wide(logits_BLK)
        probs_BLK = softmax(wide_BLK.detach())
        surrogate_SBLK = (softmax_slope(probs_BLK, wide_BLK) + _score_product(z_SBLK, probs_BLK, wide_BLK)) / 2
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype), logits_BLK, name=self.name)


@final
class Darn(Pathwise):
    """Half-DARN.

    REINFORCE in which f(D) less a baseline is guessed from the slope at the code, as ½ ∇f(D)ᵀ(D − π).

    Approximates  ∇ E[f(D)]  with  ½ (D − π)(D − π)ᵀ ∇f(D),  D ~ Cat(π),  π = softmax(θ).
    Requires      f differentiable at one-hot codes; n_samples >= 1.
    Bias          yes: half the gradient is missing where f is linear.
    Reference     Gregor, Danihelka, Mnih, Blundell, Wierstra (2014), "Deep AutoRegressive Networks", arXiv:1310.8499;
                  in this form Shekhovtsov (2023), ICML 2023.
    Departures    the paper has binary units; here each is categorical.
    """

    name = "darn"
    reference = "Gregor, Danihelka, Mnih, Blundell, Wierstra (2014), arXiv:1310.8499; Shekhovtsov (2023), ICML"
    use_when = "to see what half of zgr does; train with zgr: the bias of darn points away from the uniform law"
    relaxes = False

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with half the gradient along D − π."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        wide_BLK = wide(logits_BLK)
        surrogate_SBLK = _score_product(z_SBLK, softmax(wide_BLK.detach()), wide_BLK) / 2
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype), logits_BLK, name=self.name)


@final
class ReinMaxRao(Pathwise):
    """ReinMax-Rao.

    ReinMax's first Jacobian, at ½(π + D), is replaced by that of Gumbel-Rao around the same point.

    Approximates  ∇ E[f(D)]  with  2 J̄ ∇f(D) − ½ J(π) ∇f(D),  D ~ Cat(π),  π = softmax(θ),  J̄ = mean over m of
                  (1/τ) J(softmax(xᵐ/τ)),  xᵐ = θ_D + Gᵐ given argmax(θ_D + Gᵐ) = D,  θ_D = log(½(π + D)).
    Requires      f differentiable at one-hot codes; n_samples >= 1; n_draws >= 1; tau > 0.
    Bias          yes, even where f is linear: J̄ is not J(½(π + D)). It may be smaller than that of reinmax, or larger.
    Reference     Wang, Bui (2026), "Beyond ReinMax: Low-Variance Gradient Estimators for Discrete Latent Variables",
                  arXiv:2603.08257, section on ReinMax-Rao.
    Departures    none known; conditioning on the very D that the cost has seen, and the untempered π in θ_D, are as in
                  the authors' code.
    """

    name = "reinmax_rao"
    reference = "Wang, Bui (2026), arXiv:2603.08257"
    use_when = "reinmax is too noisy; the bias is another one, so compare the two"
    relaxes = False
    tau: float

    def __init__(self, *, tau: float = 1.0, n_draws: int = 10, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_draws = check_count(self.name, "n_draws", n_draws)
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with twice the gradient of Gumbel-Rao half-way, less half that of the softmax."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        wide_BLK = wide(logits_BLK)
        probs_BLK = softmax(wide_BLK.detach())
        middle_SBLK = ((probs_BLK + z_SBLK) / 2).clamp(min=torch.finfo(wide_BLK.dtype).tiny)
        rao_SBLK = rao_surrogate(wide_BLK, middle_SBLK.log(), class_SBL, self.tau, self.n_draws, self.name)
        surrogate_SBLK = 2 * rao_SBLK - softmax_slope(probs_BLK, wide_BLK) / 2
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype), logits_BLK, name=self.name)
