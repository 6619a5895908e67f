"""What the transforms of `torch.func` ask for: vmap, grad, jacrev and their compositions."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

Pulled = tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]


def under_transform() -> bool:
    """Return whether a transform of `torch.func` is at work: tensors may then stand for a batch of them."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def needs_gradient(logits: Tensor) -> bool:
    """Return whether the gradient of the logits may be asked for.

    Under a transform it always may: in grad(vmap(f)) the logits that f sees do not require grad.
    """
    return torch.is_grad_enabled() and (logits.requires_grad or under_transform())


def value_and_slope(
    function: Callable[[Tensor], Tensor], point: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Return function(point) and the slope of its sum in the point alone; the value keeps its graph for all others.

    The slope has a graph only if `create_graph`.
    """
    if torch.compiler.is_compiling() or under_transform():
        value, pull_back = cast(Pulled, torch.func.vjp(function, point.detach()))
        slope = pull_back(torch.ones_like(value))[0]
        return value, slope if create_graph else slope.detach()
    point = point.detach().requires_grad_()
    value = function(point)
    (slope,) = torch.autograd.grad(value.sum(), point, retain_graph=True, create_graph=create_graph)
    return value, slope


def are_batched(*gradients: Tensor | None) -> bool:
    """Return whether a backward pass is given a batch of gradients: by a transform, or by `is_grads_batched`."""
    if torch.compiler.is_compiling():
        return False
    return under_transform() or any(
        torch._C._functorch.is_legacy_batchedtensor(each) for each in gradients if each is not None
    )


def refuse_learning(name: str, learns: bool, *gradients: Tensor | None) -> None:
    """Raise ValueError if an estimator would learn under a transform or `is_grads_batched`: its state cannot change."""
    if learns and are_batched(*gradients):
        raise ValueError(
            f"{name}: expected evaluation mode under torch.func and is_grads_batched, got training: what it learns from"
            " call to call cannot change there. Call estimator.eval() before, or train it in a step without them."
        )


def refuse_batch(name: str, gradient: Tensor) -> None:
    """Raise RuntimeError if a backward pass that knows one gradient is given a batch of them."""
    if are_batched(gradient):
        raise RuntimeError(
            f"{name}: expected one gradient in the backward pass, got a batch of them (is_grads_batched, vectorize)."
            " Take torch.func.jacrev, or one torch.autograd.grad after the other."
        )


def no_forward_mode(name: str) -> RuntimeError:
    """Return the error of an estimator whose gradient has no product with a direction."""
    return RuntimeError(
        f"{name}: expected reverse mode, got forward mode: its gradient compares two codes, and has no product with a"
        " direction. Take torch.func.grad, vjp or jacrev."
    )


def refuse_preparing(name: str) -> None:
    """Raise ValueError if an estimator would make its parameters inside a transform."""
    if under_transform():
        raise ValueError(
            f"{name}: expected an estimator that is prepared under torch.func, got a new one."
            " Call estimator.prepare(n_latents, n_categories, n_context) before."
        )
