"""Adaptive I-MLE: a central difference of two perturbed argmaxes, whose step follows the scale of the cost's slope."""

from collections.abc import Callable
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn

from estimators.arguments import check_decay
from estimators.base import Cost, Estimate, Estimator, check_count, check_number
from estimators.gumbel import argmax, one_hot, perturb, wide_dtype
from estimators.imle import nan_where
from estimators.replaced import refuse_second, replace_gradient
from estimators.transforms import no_forward_mode, refuse_learning, under_transform

SMALLEST = 1e-30
"""The smallest length of a slope that is divided by, and the smallest λ."""
LARGEST_STEP = 1e6
"""Bounds of β: from its inverse to this number. Only a cost that no longer depends on the codes leads there."""


class StepLength(nn.Module):
    """The step λ of each call, and what it follows from: state of the estimator, not trained."""

    beta: Tensor
    log_square: Tensor
    nonzero: Tensor
    weight: Tensor

    def __init__(self, target: float, rate: float, decay: float) -> None:
        super().__init__()
        self.target, self.rate, self.decay = target, rate, decay
        self.register_buffer("beta", torch.ones((), dtype=torch.float32))  # whatever the default dtype
        for name in ("log_square", "nonzero", "weight"):  # moving averages from 0, and the weight of what is in them
            self.register_buffer(name, torch.zeros((), dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the buffers, and convert them to float32 or wider only: squares of slopes do not fit into float16."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self.get_buffer(name)
            if new.dtype != wide_dtype(new):
                setattr(self, name, old.to(new.device))
        return self

    def lam(self, square: Tensor) -> Tensor:
        """Return λ = β/‖∇f‖. The mean square `square` of the present slopes counts only if there is none of past ones.

        The result is a copy: later updates do not change it.
        """
        past = self.log_square / self.weight.clamp(min=SMALLEST)
        length = torch.where(self.weight > 0, past, square.log().to(past.dtype)).div(2).exp()
        return (self.beta / length.clamp(min=SMALLEST)).clamp(min=SMALLEST)

    def update(self, square: Tensor, nonzero: Tensor, count: Tensor) -> None:
        """Add means over `count` latents to the averages, and move β one step towards the target; 0 changes nothing.

        Nor does a mean square that overflows. The average is that of logarithms: one batch with a slope of another size
        moves it little.
        """
        is_known = (count > 0) & (square > 0) & (square < torch.inf)
        is_any, log_square = is_known.to(self.weight.dtype), square.where(is_known, 1.0).log()
        share = (1 - self.decay) * is_any
        for average, mean in ((self.log_square, log_square), (self.nonzero, nonzero), (self.weight, is_any)):
            average.add_(share * (mean.to(average.dtype) - average))
        direction = torch.where(self.nonzero < self.target * self.weight, 1.0, -1.0)
        self.beta.mul_((self.rate * is_any * direction).exp()).clamp_(1 / LARGEST_STEP, LARGEST_STEP)


class _CentralDifference(torch.autograd.Function):
    """x_SBLK → (D, 0_SB), D = onehot(argmax x). Backward: (onehot(argmax(x + λ∇f)) − onehot(argmax(x − λ∇f)))/(2λ).

    The zeros are added to the cost, so that their gradient is the weight w of each sample's cost in what is being
    minimised, as in `imle`: w ∇f divided by w depends neither on the batch size, nor on n_samples, nor on a loss scale.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits_BLK: Tensor, x_SBLK: Tensor, step: StepLength, is_training: bool) -> tuple[Tensor, Tensor]:
        z_SBLK = one_hot(argmax(x_SBLK), like=logits_BLK)
        return z_SBLK, z_SBLK.new_zeros(z_SBLK.shape[:2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        logits_BLK, x_SBLK, ctx.step, ctx.is_training = inputs
        ctx.dtype = logits_BLK.dtype
        ctx.save_for_backward(x_SBLK)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None, None]:
        refuse_learning(AIMLE.name, ctx.is_training, *gradients)
        (x_SBLK,) = ctx.saved_tensors
        weighted_SBLK = torch.zeros_like(x_SBLK) if gradients[0] is None else gradients[0]
        weight_SB = x_SBLK.new_ones(x_SBLK.shape[:2]) if gradients[1] is None else gradients[1]  # not a cost's slope
        with torch.no_grad():
            gradient_BLK = _difference(ctx.step, ctx.is_training, x_SBLK, weighted_SBLK, weight_SB)
        return refuse_second(gradient_BLK.to(ctx.dtype), AIMLE.name, weighted_SBLK, weight_SB), None, None, None


class _CentralDifferenceInTransform(_CentralDifference):
    """The same under torch.func; torch.compile takes no function that knows forward mode."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        raise no_forward_mode(AIMLE.name)


def _difference(
    step: StepLength, is_training: bool, x_SBLK: Tensor, weighted_SBLK: Tensor, weight_SB: Tensor
) -> Tensor:
    """Return the gradient (B, L, K) of the logits, given those of the codes and of the zeros; the step adapts."""
    weight_SB11 = weight_SB[..., None, None].to(x_SBLK.dtype)
    slope_SBLK = weighted_SBLK / torch.where(weight_SB11 == 0, torch.ones_like(weight_SB11), weight_SB11)
    slope_SBLK, square_SBL = _centred(slope_SBLK, x_SBLK)
    counted_SBL = (weight_SB[..., None] != 0) & (square_SBL > 0) & (square_SBL < torch.inf)
    count = counted_SBL.sum()
    square = square_SBL.where(counted_SBL, 0.0).sum() / count.clamp(min=1)
    lam = step.lam(square).to(x_SBLK.dtype)
    dearer_SBL, cheaper_SBL = argmax(x_SBLK + lam * slope_SBLK), argmax(x_SBLK - lam * slope_SBLK)
    if is_training:
        differs_SBL = (dearer_SBL != cheaper_SBL) & counted_SBL
        step.update(square, 2 * differs_SBL.sum().to(square.dtype) / count.clamp(min=1), count)
    difference_SBLK = one_hot(dearer_SBL, like=x_SBLK) - one_hot(cheaper_SBL, like=x_SBLK)
    return nan_where(slope_SBLK, weight_SB11 * difference_SBLK / (2 * lam)).sum(0)


def _centred(slope_SBLK: Tensor, x_SBLK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope less its mean over the classes that are not masked, 0 at the others, and its mean square."""
    masked_SBLK = x_SBLK == -torch.inf
    n_SBL1 = x_SBLK.shape[-1] - masked_SBLK.sum(-1, keepdim=True)
    mean_SBL1 = slope_SBLK.masked_fill(masked_SBLK, 0.0).sum(-1, keepdim=True) / n_SBL1
    centred_SBLK = (slope_SBLK - mean_SBL1).masked_fill(masked_SBLK, 0.0)
    return centred_SBLK, centred_SBLK.square().sum(-1) / n_SBL1.squeeze(-1)


@final
class AIMLE(Estimator):
    """Adaptive implicit maximum likelihood estimation (AIMLE).

    Two codes with the noise of the drawn one: after a step of length λ along ∇f(D), and after one against it. The step
    grows while the two are equal too often, which gives no gradient, and shrinks while they differ too often.

    Approximates  ∇ E[f(D)]  with  (D₊ − D₋)/(2λ),  D = onehot(argmax(θ + G)),  D± = onehot(argmax(θ ± λ ∇f(D) + G)).
                  λ = β/‖∇f‖,  ‖∇f‖ the root mean square of the entries of ∇f, less their mean over the classes that are
                  not masked; its logarithm is averaged over batches. After each backward pass β ← β e^{±rate}: + where
                  D₊ − D₋ had on average fewer than `target` entries other than 0 a latent. It has two where D₊ and D₋
                  differ. β starts at 1.
    Requires      f differentiable at one-hot codes; 0 < target < 2; rate > 0; 0 <= decay < 1; n_samples >= 1. There is
                  one λ for all latents and examples. So their slopes have to be of about one size: where those of one
                  example in every batch are 10⁶ times as large, the others get no gradient.
    Bias          yes: a finite difference. On linear f its error is of second order in λ, that of imle of first. A
                  smaller target has less bias, and a variance that grows as 1/target.
    Reference     Minervini, Franceschi, Niepert (2023), "Adaptive Perturbation-Based Gradient Estimation for Discrete
                  Latent Variable Models", AAAI 2023, arXiv:2209.04862. The rule for β is that of the authors' code.
    Departures    λ: theirs is β‖θ‖/‖∇f‖, which is 0 at equal logits and changes if a constant is added to them. The
                  noise, which has one scale, takes the place of θ here. Target: theirs is one entry a sample, not so
                  many a latent. β: theirs moves by ±0.0001. ‖∇f‖: theirs is that of the present batch. Here it is, but
                  for the first call, a moving average of previous ones, by `decay`, so that no example changes the λ of
                  another. The entries are averaged like this too. Both count latents whose slope is not 0, and move
                  after use, in training mode only. Noise, and weights in the loss: as in imle.
    """

    name = "aimle"
    reference = "Minervini, Franceschi, Niepert (2023), AAAI, arXiv:2209.04862"
    use_when = "as imle, without a lam to tune: the representative of perturb-and-MAP methods"
    relaxes = False

    def __init__(self, *, target: float = 0.3, rate: float = 0.01, decay: float = 0.9, n_samples: int = 1) -> None:
        """Raise ValueError for an impossible argument."""
        super().__init__()
        if check_number(self.name, "target", target, above=0.0) >= 2:
            raise ValueError(f"{self.name}: expected target < 2, the entries of a difference, got {target!r}.")
        self.target = float(target)
        self.rate = check_number(self.name, "rate", rate, above=0.0)
        self.decay = check_decay(self.name, decay)
        self.n_samples = check_count(self.name, "n_samples", n_samples)
        self.step = StepLength(self.target, self.rate, self.decay)

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; backward, each code's two targets are compared, and λ adapts."""
        refuse_learning(self.name, self.training)
        x_SBLK = perturb(logits_BLK.detach(), self.n_samples)
        made = _CentralDifferenceInTransform if under_transform() else _CentralDifference
        once_BLK = replace_gradient(logits_BLK.detach(), logits_BLK, logits_BLK, name=self.name)
        z_SBLK, zero_SB = cast(tuple[Tensor, Tensor], made.apply(once_BLK, x_SBLK, self.step, self.training))
        return Estimate((self.evaluate(cost, z_SBLK) + zero_SB).mean(0), z_SBLK=z_SBLK.detach())
