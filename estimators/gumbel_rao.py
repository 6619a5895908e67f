"""Gumbel-Rao: straight-through Gumbel-Softmax, averaged over the noise that leads to the same code."""

from typing import Any, final

import torch
from torch import Tensor

from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gumbel import LOWEST, one_hot, sample_classes, wide
from estimators.rao_slope import mean_slope, relaxations
from estimators.replaced import refuse_second
from estimators.simplex import log_softmax, softmax
from estimators.transforms import refuse_batch, under_transform


def rao_surrogate(
    logits_BLK: Tensor, law_SBLK: Tensor, class_SBL: Tensor, tau: float | Tensor, n_draws: int, name: str
) -> Tensor:
    """Return a tensor (S, B, L, K) with the gradient of the mean over m of softmax(xᵐ/τ), for `replace_gradient`.

    xᵐ = log `law` + G given that its argmax is `class_SBL`; its gradient reaches `logits_BLK` as if it moved with them
    one to one, and a learned tau. `law_SBLK` holds logits, and is a constant: only then has Gumbel-Rao the mean of
    straight-through Gumbel-Softmax. The noise is drawn in the backward pass, in chunks and from a seed that is drawn
    here: memory does not grow with n_draws, and a value without a gradient costs nothing. On every device the seed is
    from the CPU's default generator, since to read one from a GPU would stall it.
    """
    if under_transform():  # noise that vmap can draw, all of it at once
        tied_BLK = wide(logits_BLK).clamp(min=LOWEST)
        x_MSBLK = relaxations(wide(law_SBLK.detach()).clamp(min=LOWEST), class_SBL, n_draws)
        return softmax((x_MSBLK + (tied_BLK - tied_BLK.detach())) / tau).mean(0)
    tied_SBLK = wide(logits_BLK).expand(*class_SBL.shape, -1)
    zeros_SBLK: Tensor = _MeanRelaxation.apply(tied_SBLK, wide(law_SBLK.detach()), class_SBL, tau, n_draws, name)
    return zeros_SBLK


class _MeanRelaxation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tied_SBLK: Tensor, law_SBLK: Tensor, class_SBL: Tensor, tau: float | Tensor, n_draws: int, name: str
    ) -> Tensor:
        ctx.save_for_backward(law_SBLK.expand_as(tied_SBLK), class_SBL, torch.randint(2**63 - 1, ()))
        ctx.tau, ctx.n_draws, ctx.name = tau, n_draws, name
        return tied_SBLK.new_zeros(()).expand_as(tied_SBLK)

    @staticmethod
    def backward(ctx: Any, grad_SBLK: Tensor) -> tuple[Tensor | None, ...]:
        refuse_batch(ctx.name, grad_SBLK)
        law_SBLK, class_SBL, seed = ctx.saved_tensors
        tau = grad_SBLK.new_ones(()) * ctx.tau if torch.compiler.is_compiling() else ctx.tau
        slopes = _opaque_mean_slope if torch.compiler.is_compiling() else _mean_slope
        learns_tau = ctx.needs_input_grad[3]
        with torch.no_grad():
            slope_SBLK, slope_tau = slopes(grad_SBLK, law_SBLK, class_SBL, seed, tau, ctx.n_draws, learns_tau)
        fixed = (grad_SBLK, tau) if learns_tau else (grad_SBLK,)
        of_tau = refuse_second(slope_tau, ctx.name, *fixed) if learns_tau else None
        return refuse_second(slope_SBLK, ctx.name, *fixed), None, None, of_tau, None, None


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
    generator = torch.Generator(grad_SBLK.device).manual_seed(int(seed))
    log_probs_SBLK = log_softmax(law_SBLK).clamp(min=LOWEST)
    slope_SBLK, slope_tau = mean_slope(
        grad_SBLK.flatten(0, -2),
        log_probs_SBLK.flatten(0, -2),
        class_SBL.flatten(),
        generator,
        tau,
        n_draws,
        learns_tau=learns_tau,
    )
    return slope_SBLK.reshape(grad_SBLK.shape), slope_tau


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


@final
class GumbelRao(Pathwise):
    """Gumbel-Rao, Rao-Blackwellised straight-through Gumbel-Softmax.

    Of the noise, only the sampled class matters to the cost: the rest is drawn n_draws times given that class, and the
    relaxation's Jacobian averaged, without another evaluation of the cost. The draws are stratified.

    Approximates  ∇ E[f(D)]  with  mean over m of  (1/τ) J(softmax(xᵐ/τ)) ∇f(D),  D ~ Cat(softmax(θ)),
                  xᵐ = θ + Gᵐ given argmax(θ + Gᵐ) = D,  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; n_samples >= 1; n_draws >= 1; tau > 0.
    Bias          that of st_gumbel_softmax at the same tau, with at most its variance, and less for n_draws > 1.
    Reference     Paulus, Maddison, Krause (2021), "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient
                  Estimator", arXiv:2010.04838, section 3.
    Departures    the paper also differentiates the conditional draws with respect to θ. Here they are constants: only
                  then does the mean equal that of st_gumbel_softmax (K=3, τ=.7: .210, −.320, .110; with the total
                  derivative .070, −.114, .044). The paper's draws are independent. Here each has the same law, but
                  the uniform numbers of a class fall into the n_draws strata of [0, 1), one into each: the same mean,
                  a smaller variance, and one generated number for n_draws (docs/decisions/018). On every device, the
                  seed of this noise is from the CPU's default generator.
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
        surrogate_SBLK = rao_surrogate(logits_BLK, logits_BLK, class_SBL, self.tau, self.n_draws, self.name)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype), logits_BLK, name=self.name)
