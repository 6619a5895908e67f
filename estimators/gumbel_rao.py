"""Gumbel-Rao: straight-through Gumbel-Softmax, averaged over the noise that leads to the same code."""

from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gumbel import LOWEST, exponential, one_hot, sample_classes, wide
from estimators.simplex import log_softmax

ENTRIES_AT_ONCE = 2**17
"""Conditional noise is drawn for that many classes at once: what a chunk needs stays in a processor's own cache."""


def rao_surrogate(logits_BLK: Tensor, law_SBLK: Tensor, class_SBL: Tensor, tau: float | Tensor, n_draws: int) -> Tensor:
    """Return zeros (S, B, L, K) with the gradient of the mean over m of softmax(xᵐ/τ), for `replace_gradient`.

    xᵐ = log `law` + G given that its argmax is `class_SBL`; its gradient reaches `logits_BLK` as if it moved with them
    one to one, and a learned tau. `law_SBLK` holds logits, and is a constant: only then has Gumbel-Rao the mean of
    straight-through Gumbel-Softmax. The noise is drawn in the backward pass, ENTRIES_AT_ONCE at a time and from a seed
    that is drawn here: memory does not grow with n_draws, and a value without a gradient costs nothing.
    """
    tied_SBLK = wide(logits_BLK).expand(*class_SBL.shape, -1)
    zeros_SBLK: Tensor = _MeanRelaxation.apply(tied_SBLK, wide(law_SBLK.detach()), class_SBL, tau, n_draws)
    return zeros_SBLK


class _MeanRelaxation(torch.autograd.Function):
    """Letters: M draws, N = S·B·L latents. K comes before N, so that every operation runs along the longest rows."""

    @staticmethod
    def forward(
        ctx: Any, tied_SBLK: Tensor, law_SBLK: Tensor, class_SBL: Tensor, tau: float | Tensor, n_draws: int
    ) -> Tensor:
        ctx.save_for_backward(law_SBLK.expand_as(tied_SBLK), class_SBL, torch.randint(2**63 - 1, ()))
        ctx.tau, ctx.n_draws = tau, n_draws
        return tied_SBLK.new_zeros(()).expand_as(tied_SBLK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SBLK: Tensor) -> tuple[Tensor, None, None, Tensor | None, None]:
        law_SBLK, class_SBL, seed = ctx.saved_tensors
        tau = grad_SBLK.new_ones(()) * ctx.tau if torch.compiler.is_compiling() else ctx.tau
        slopes = _opaque_mean_slope if torch.compiler.is_compiling() else _mean_slope
        slope_SBLK, slope_tau = slopes(grad_SBLK, law_SBLK, class_SBL, seed, tau, ctx.n_draws, ctx.needs_input_grad[3])
        return slope_SBLK, None, None, slope_tau if ctx.needs_input_grad[3] else None, None


def _mean_slope(
    grad_SBLK: Tensor,
    law_SBLK: Tensor,
    class_SBL: Tensor,
    seed: Tensor,
    tau: float | Tensor,
    n_draws: int,
    learns_tau: bool,
) -> tuple[Tensor, Tensor]:
    """Return the mean over the draws of J(softmax(x/τ)) · grad / τ, and its slope in τ: 0 unless `learns_tau`."""
    grad_KN = grad_SBLK.flatten(0, -2).T.contiguous()
    log_probs_KN = log_softmax(law_SBLK).clamp(min=LOWEST).flatten(0, -2).T.contiguous()
    class_N = class_SBL.flatten()
    slope_KN, slope_tau = torch.zeros_like(grad_KN), grad_KN.new_zeros(())
    generator = torch.Generator(grad_KN.device).manual_seed(int(seed))
    for n_now in _chunks(n_draws, grad_KN.numel()):
        noise_MKN = exponential((n_now, *grad_KN.shape), like=grad_KN, generator=generator)
        ratio_MKN = log_ratios(log_probs_KN, class_N, noise_MKN).div_(tau)
        slope_MKN = _softmax_slope(ratio_MKN, grad_KN)
        slope_KN += slope_MKN.sum(0)
        if learns_tau:
            slope_tau -= (slope_MKN * ratio_MKN).sum()
    scale = 1 / (n_draws * tau)
    return (scale * slope_KN).T.reshape(grad_SBLK.shape), scale * slope_tau


@torch.library.custom_op("argmax_grad::gumbel_rao_slope", mutates_args=())
def _opaque_mean_slope(
    grad: Tensor, law: Tensor, classes: Tensor, seed: Tensor, tau: Tensor, n_draws: int, learns_tau: bool
) -> tuple[Tensor, Tensor]:
    """Return the same, as one operation of a compiled graph, in which no generator can be made (from torch 2.14 on)."""
    slope, slope_tau = _mean_slope(grad, law, classes, seed, tau, n_draws, learns_tau)
    return slope.contiguous(), slope_tau


@_opaque_mean_slope.register_fake
def _(
    grad: Tensor, law: Tensor, classes: Tensor, seed: Tensor, tau: Tensor, n_draws: int, learns_tau: bool
) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), grad.new_empty(())


def log_ratios(log_probs_KN: Tensor, class_N: Tensor, noise_MKN: Tensor) -> Tensor:
    """Return x_j − x_i (M, K, N), i the given class, of x = log π + G given that its argmax is i: 0 at most.

    With E ~ Exp(1), `noise_MKN`: x_i = −log E_i and x_j = −log(E_j/π_j + E_i), so x_j − x_i = log π_j + log E_i −
    log(E_i π_j + E_j), in which no probability, however small, is a divisor. Reference: Paulus, Maddison, Krause
    (2021), arXiv:2010.04838, section 3.
    """
    index_M1N = class_N.expand(len(noise_MKN), 1, -1)
    first_M1N = noise_MKN.gather(1, index_M1N)
    ratio_MKN = torch.addcmul(noise_MKN, first_M1N, log_probs_KN.exp()).log_()
    torch.sub(first_M1N.log_(), ratio_MKN, out=ratio_MKN).add_(log_probs_KN)
    return ratio_MKN.scatter_(1, index_M1N, 0.0)


def _softmax_slope(ratio_MKN: Tensor, grad_KN: Tensor) -> Tensor:
    """Return J(p) · grad, p = softmax(ratio) over K. The largest ratio is 0: nothing overflows."""
    probs_MKN = ratio_MKN.exp()
    probs_MKN.div_(probs_MKN.sum(1, keepdim=True))
    weighted_MKN = probs_MKN * grad_KN
    return weighted_MKN.addcmul_(probs_MKN, weighted_MKN.sum(1, keepdim=True), value=-1)


def _chunks(n_draws: int, n_entries: int) -> list[int]:
    most = max(1, ENTRIES_AT_ONCE // max(1, n_entries))
    return [min(most, n_draws - done) for done in range(0, n_draws, most)]


@final
class GumbelRao(Pathwise):
    """Gumbel-Rao, Rao-Blackwellised straight-through Gumbel-Softmax.

    Of the noise, only the sampled class matters to the cost: the rest is drawn n_draws times given that class, and the
    relaxation's Jacobian averaged, without another evaluation of the cost.

    Approximates  ∇ E[f(D)]  with  mean over m of  (1/τ) J(softmax(xᵐ/τ)) ∇f(D),  D ~ Cat(softmax(θ)),
                  xᵐ = θ + Gᵐ given argmax(θ + Gᵐ) = D,  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; n_samples >= 1; n_draws >= 1; tau > 0.
    Bias          that of st_gumbel_softmax at the same tau, with at most its variance, and less for n_draws > 1.
    Reference     Paulus, Maddison, Krause (2021), "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient
                  Estimator", arXiv:2010.04838, section 3.
    Departures    the paper also differentiates the conditional draws with respect to θ. Here they are constants: only
                  then does the mean equal that of st_gumbel_softmax (K=3, τ=.7: .210, −.320, .110; with the total
                  derivative .070, −.114, .044).
    """

    name = "gumbel_rao"
    reference = "Paulus, Maddison, Krause (2021), arXiv:2010.04838"
    use_when = "st_gumbel_softmax at a low tau is too noisy, and the cost is more expensive than n_draws softmaxes"
    relaxes = False
    tau: float

    def __init__(self, *, tau: float = 1.0, n_draws: int = 10, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_draws = check_count(self.name, "n_draws", n_draws)
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of the mean of their relaxations."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        surrogate_SBLK = rao_surrogate(logits_BLK, logits_BLK, class_SBL, self.tau, self.n_draws)
        return replace_gradient(one_hot(class_SBL, like=logits_BLK), surrogate_SBLK.to(logits_BLK.dtype))
