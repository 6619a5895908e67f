"""Alpha-entmax of the package `entmax`, as torch.func, torch.compile and a second derivative need it.

The package is imported where an estimator that needs it is built. Its own functions are not differentiable twice, and
torch.func refuses them; here the values are its own, and the derivative is written out.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from estimators.transforms import under_transform

Mapping = Callable[[Tensor], Tensor]


def entmax_mapping(name: str, alpha: float) -> Mapping:
    """Return alpha-entmax over the last dimension; ValueError if the package is missing."""
    try:
        entmax = import_module("entmax")
    except ImportError:
        raise ValueError(f"{name}: expected the package entmax, got none. Install it: pip install entmax.") from None
    exact: dict[float, Mapping] = {1.5: entmax.entmax15, 2.0: entmax.sparsemax}
    return partial(_entmax, exact.get(alpha) or partial(entmax.entmax_bisect, alpha=alpha), alpha)


def _entmax(mapping: Mapping, alpha: float, x_xK: Tensor) -> Tensor:
    made = _EntmaxInTransform if under_transform() else _Entmax
    return cast(Tensor, made.apply(x_xK, mapping, alpha))


def _slope(y_xK: Tensor, grad_xK: Tensor, alpha: float) -> Tensor:
    """Return J · grad, J = diag(s) − s sᵀ/Σs,  s = y^(2−α) on y > 0, otherwise 0; differentiable in both."""
    is_kept_xK = y_xK > 0
    s_xK = torch.where(is_kept_xK, torch.where(is_kept_xK, y_xK, 1.0) ** (2 - alpha), 0.0)
    weighted_xK = grad_xK * s_xK
    return weighted_xK - weighted_xK.sum(-1, keepdim=True) / s_xK.sum(-1, keepdim=True) * s_xK


def _slope_once(y_xK: Tensor, grad_xK: Tensor, alpha: float) -> Tensor:
    """Return the same with the roundings of the package, which has a formula for each alpha."""
    if alpha == 2:
        is_kept_xK = y_xK != 0
        kept_xK = torch.where(is_kept_xK, grad_xK, 0.0)
        mean_x1 = kept_xK.sum(-1, keepdim=True) / is_kept_xK.sum(-1, keepdim=True).to(y_xK.dtype)
        return torch.where(is_kept_xK, kept_xK - mean_x1, kept_xK)
    power = 2 - torch.full_like(y_xK[..., :1], alpha)  # a tensor: a number is rounded in another way
    s_xK = y_xK.sqrt() if alpha == 1.5 else torch.where(y_xK > 0, y_xK**power, 0.0)
    weighted_xK = grad_xK * s_xK
    return weighted_xK - weighted_xK.sum(-1, keepdim=True) / s_xK.sum(-1, keepdim=True) * s_xK


class _Entmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_xK: Tensor, mapping: Mapping, alpha: float) -> Tensor:
        y_xK = mapping(x_xK)
        ctx.save_for_backward(y_xK)
        ctx.alpha = alpha
        return y_xK

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (y_xK,) = ctx.saved_tensors
        is_once = torch.compiler.is_compiling() or not torch.is_grad_enabled()
        return (_slope_once if is_once else _slope)(y_xK, gradients[0], ctx.alpha), None, None


class _EntmaxInTransform(torch.autograd.Function):
    @staticmethod
    def forward(x_xK: Tensor, mapping: Mapping, alpha: float) -> Tensor:
        return mapping(x_xK)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)
        ctx.alpha = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (y_xK,) = ctx.saved_tensors
        return _slope(y_xK, gradients[0], ctx.alpha), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (y_xK,) = ctx.saved_tensors
        return _slope(y_xK, tangents[0], ctx.alpha)  # J is symmetric

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x_xK: Tensor, mapping: Mapping, alpha: float) -> tuple[Tensor, int]:
        return _entmax(mapping, alpha, x_xK.movedim(in_dims[0], 0)), 0
