"""I-MLE: the difference of two perturbed argmaxes, before and after a step against the gradient of the cost."""

from types import MappingProxyType
from typing import Any, cast, final

import torch
from torch import Tensor

from estimators.base import Cost, Estimate, Estimator, check_count, check_number
from estimators.gumbel import argmax, one_hot, perturb
from estimators.replaced import refuse_second, replace_gradient
from estimators.transforms import no_forward_mode, under_transform

NO_LAM = (
    "imle: expected lam > 0, got none. No value fits every cost: choose lam so that lam times the differences of the"
    " cost's slope between classes is about 1, such as 0.1 for a VAE of MNIST, or use aimle, which adapts it."
)


class _TargetDifference(torch.autograd.Function):
    """x_SBLK → (D, 0_SB), D = onehot(argmax x). Backward: (D − onehot(argmax(x − λ ∇f)))/λ.

    The zeros are added to the cost, so that their gradient is the weight w of each sample's cost in what is being
    minimised. The gradient that arrives for D is w ∇f. Divided by w, it depends neither on the batch size, nor on
    n_samples, nor on a loss scale.
    """

    @staticmethod
    def forward(ctx: Any, logits_BLK: Tensor, x_SBLK: Tensor, lam: float) -> tuple[Tensor, Tensor]:
        z_SBLK = one_hot(argmax(x_SBLK), like=logits_BLK)
        ctx.save_for_backward(x_SBLK, z_SBLK)
        ctx.lam = lam
        ctx.set_materialize_grads(False)
        return z_SBLK, z_SBLK.new_zeros(z_SBLK.shape[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        x_SBLK, z_SBLK = ctx.saved_tensors
        weighted_SBLK, weight_SB = gradients
        return _difference(x_SBLK, z_SBLK, ctx.lam, weighted_SBLK, weight_SB), None, None


class _TargetDifferenceInTransform(torch.autograd.Function):
    """The same in the form of torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits_BLK: Tensor, x_SBLK: Tensor, lam: float) -> tuple[Tensor, Tensor]:
        z_SBLK = one_hot(argmax(x_SBLK), like=logits_BLK)
        return z_SBLK, z_SBLK.new_zeros(z_SBLK.shape[:2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, x_SBLK, ctx.lam = inputs
        ctx.save_for_backward(x_SBLK, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        x_SBLK, z_SBLK = ctx.saved_tensors
        weighted_SBLK, weight_SB = gradients
        return _difference(x_SBLK, z_SBLK, ctx.lam, weighted_SBLK, weight_SB), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        raise no_forward_mode(IMLE.name)


def _difference(
    x_SBLK: Tensor, z_SBLK: Tensor, lam: float, weighted_SBLK: Tensor | None, weight_SB: Tensor | None
) -> Tensor:
    """Return the gradient of the logits, given those of the codes and of the zeros.

    Where none comes for the zeros, something else than the cost is differentiated, in which a sample weighs 1.
    """
    weighted_SBLK = torch.zeros_like(z_SBLK) if weighted_SBLK is None else weighted_SBLK
    weight_SB = z_SBLK.new_ones(z_SBLK.shape[:2]) if weight_SB is None else weight_SB
    weight_SB11 = weight_SB[..., None, None].to(x_SBLK.dtype)
    divisor_SB11 = torch.where(weight_SB11 == 0, torch.ones_like(weight_SB11), weight_SB11)
    slope_SBLK = weighted_SBLK / divisor_SB11
    target_SBLK = one_hot(argmax(x_SBLK - lam * slope_SBLK), like=x_SBLK)
    gradient_SBLK = nan_where(slope_SBLK, weight_SB11 * (z_SBLK - target_SBLK) / lam)
    return refuse_second(gradient_SBLK.sum(0).to(z_SBLK.dtype), IMLE.name, weighted_SBLK)


def nan_where(slope_SBLK: Tensor, gradient_SBLK: Tensor) -> Tensor:
    """Return the gradient, NaN where the slope of the cost is: an argmax would make a number of it."""
    return torch.where(slope_SBLK.isnan(), slope_SBLK, gradient_SBLK)


@final
class IMLE(Estimator):
    """Implicit maximum likelihood estimation (I-MLE).

    A step of length lam against ∇f(D) gives logits under which a cheaper code is more probable; with the same noise,
    the code there is the target of the logits, as in maximum likelihood.

    Approximates  ∇ E[f(D)]  with  (D − D')/λ,  D = onehot(argmax(θ + G)),  D' = onehot(argmax(θ − λ ∇f(D) + G)).
    Requires      f differentiable at one-hot codes; n_samples >= 1; lam > 0.
    Bias          yes: a finite difference. As λ → 0 it tends, for linear f, to the exact gradient, while the variance
                  grows as 1/λ; as λ → ∞ D' is the class of least slope and the gradient vanishes as 1/λ.
    Reference     Niepert, Minervini, Franceschi (2021), "Implicit MLE: Backpropagating Through Discrete Exponential
                  Family Distributions", arXiv:2106.01798, section 3 and algorithm 1.
    Departures    noise: the paper's Sum-of-Gamma, made for k-subsets, tends to Gumbel noise for k = 1, one class. Its
                  noise temperature is 1, so that the codes follow softmax(θ). ∇f is that of one code's cost: the public
                  code takes it times the weight in the loss (1/batch), which makes λ depend on the size of the batch.
    """

    name = "imle"
    reference = "Niepert, Minervini, Franceschi (2021), arXiv:2106.01798"
    use_when = "as aimle, with a fixed lam, which has to be tuned to the scale of the cost's slope: it must be given"
    relaxes = False

    examples = MappingProxyType({"lam": 0.1})

    def __init__(self, *, lam: float | None = None, n_samples: int = 1) -> None:
        """Raise ValueError for an impossible argument, and without lam."""
        super().__init__()
        if lam is None:
            raise ValueError(NO_LAM)
        self.lam = check_number(self.name, "lam", lam, above=0.0)
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; backward, each code is compared with its target."""
        x_SBLK = perturb(logits_BLK.detach(), self.n_samples)
        made = _TargetDifferenceInTransform if under_transform() else _TargetDifference
        once_BLK = replace_gradient(logits_BLK.detach(), logits_BLK, logits_BLK, name=self.name)
        z_SBLK, zero_SB = cast(tuple[Tensor, Tensor], made.apply(once_BLK, x_SBLK, self.lam))
        return Estimate((self.evaluate(cost, z_SBLK) + zero_SB).mean(0), z_SBLK=z_SBLK.detach())
