"""The value of one tensor with the gradient of another: every straight-through and every score-function term.

Such a gradient has a second derivative only if its surrogate holds nothing fixed that depends on the logits or on the
cost. Where it does, the estimator names those tensors, and a second derivative through them is refused.

Each function exists twice: `torch.func` needs another form, which takes six times as long for each call.
"""

from typing import Any, cast

import torch
from torch import Tensor

from estimators.transforms import under_transform


def replace_gradient(value: Tensor, surrogate: Tensor, *fixed: Tensor, name: str = "estimator") -> Tensor:
    """Return `value`, to the bit, with the gradient of `surrogate`, a tensor of the same shape.

    Every straight-through and every score-function term passes through here. The familiar
    `value - surrogate.detach() + surrogate` has the same gradient, but its value is off by rounding where the surrogate
    exceeds 1, as logits and costs do.

    `fixed` are the tensors on which the gradient depends, but which the surrogate holds as constants. To differentiate
    the gradient with respect to them raises RuntimeError, in the name of the estimator `name`.
    """
    if torch.compiler.is_compiling():  # a compiled step has no second derivative at all
        return cast(Tensor, _Replaced.apply(value, surrogate, ()))
    if under_transform():
        return cast(Tensor, _ReplacedInTransform.apply(value, surrogate, name, *fixed))
    return cast(Tensor, _Replaced.apply(value, surrogate, (refusal(value, name, *fixed),)))


def add_score(cost: Tensor, score: Tensor, *fixed: Tensor, name: str, once: bool = False) -> Tensor:
    """Return `cost`, to the bit, with the gradients of both `cost` and `score`, a tensor of the same shape.

    `fixed`, the logits, are what the gradients depend on beside the cost: they set the codes, and they enter the score.
    To differentiate them with respect to `fixed`, or that of the score with respect to the cost, raises RuntimeError.
    So does any second derivative of the score if it has one derivative only, `once`.
    """
    score = score.to(cost.dtype)
    if torch.compiler.is_compiling():
        return cast(Tensor, _Replaced.apply(cost, cost + score, ()))
    if under_transform():
        return cast(Tensor, _ScoredInTransform.apply(cost, score, name, once, *fixed))
    zeros = refusal(cost, name, *fixed), refusal(cost, name, cost)
    return cast(Tensor, _Scored.apply(cost, score, name, once, zeros))


def refusal(like: Tensor, name: str, *fixed: Tensor) -> Tensor | None:
    """Return a zero that refuses to be differentiated with respect to `fixed`; None where that is impossible anyway.

    To subtract it from a gradient is `refuse_second`. It keeps none of the tensors alive: one that is changed in place
    after the call would otherwise hold its own graph, in a cycle that is never freed.
    """
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in fixed):
        return None
    return cast(Tensor, _Zero.apply(like.detach(), name, *fixed))


def refuse_second(gradient: Tensor, name: str, *fixed: Tensor) -> Tensor:
    """Return a gradient that is not to be differentiated with respect to `fixed`: RuntimeError says so."""
    if not (fixed and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return gradient
    made = _ZeroInTransform if under_transform() else _Zero
    return gradient - cast(Tensor, made.apply(gradient.detach(), name, *fixed))  # −0.0 − 0.0 is −0.0: no bit changes


def _no_second_derivative(name: str) -> RuntimeError:
    return RuntimeError(
        f"{name}: expected one derivative, got a second one: this gradient holds fixed what it depends on, so that its"
        " own derivative would be wrong. Leave out create_graph, or take gumbel_softmax, softmax or exact."
    )


Zeros = tuple[Tensor | None, ...]
"""Refusals. In a tuple they are no inputs of a Function: a gradient, even none, that reached one would be refused."""


def _less(gradient: Tensor, zero: Tensor | None) -> Tensor:
    """Return the gradient, which is differentiable only as far as `zero`, a `refusal`, is."""
    return gradient if zero is None or not torch.is_grad_enabled() else gradient - zero


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor, zeros: Zeros) -> Tensor:
        ctx.zeros = zeros
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, _less(gradients[0], ctx.zeros[0] if ctx.zeros else None), None


class _Scored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: Tensor, score: Tensor, name: str, once: bool, zeros: Zeros) -> Tensor:
        ctx.name, ctx.once, ctx.zeros = name, once, zeros
        return cost.clone()  # a view of an input could not be changed in place: loss += kl

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        zero, zero_of_cost = ctx.zeros
        of_cost = _less(gradients[0], zero)
        of_score = _less(of_cost, zero_of_cost)
        if ctx.once:
            of_score = refuse_second(of_score, ctx.name, of_cost)
        return of_cost, of_score, None, None, None


class _Zero(torch.autograd.Function):
    """A zero whose derivative with respect to `fixed` is an error."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, name: str, *fixed: Tensor) -> Tensor:
        ctx.name = name
        return like.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        raise _no_second_derivative(ctx.name)


class _ReplacedInTransform(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor, name: str, *fixed: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.name, *fixed = inputs
        ctx.save_for_backward(*fixed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        fixed = ctx.saved_tensors
        return None, refuse_second(gradients[0], ctx.name, *fixed), None, *(None for _ in fixed)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[1].view_as(tangents[1])


class _ScoredInTransform(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(cost: Tensor, score: Tensor, name: str, once: bool, *fixed: Tensor) -> Tensor:
        return cost.view_as(cost)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        cost, _, ctx.name, ctx.once, *fixed = inputs
        ctx.save_for_backward(cost, *fixed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cost, *others = ctx.saved_tensors
        of_cost = refuse_second(gradients[0], ctx.name, *others)
        of_score = refuse_second(of_cost, ctx.name, cost, *([of_cost] if ctx.once else []))
        return of_cost, of_score, None, None, *(None for _ in others)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0] + tangents[1]


class _ZeroInTransform(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(like: Tensor, name: str, *fixed: Tensor) -> Tensor:
        return like.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.name = inputs[1]

    backward = _Zero.backward

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        raise _no_second_derivative(ctx.name)
