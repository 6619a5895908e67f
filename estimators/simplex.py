"""Softmax, its logarithm and its derivative, as all families use them."""

from typing import Any, cast

import torch
from torch import Tensor

from estimators.transforms import under_transform

LONGEST_ROW = 64
"""Rows of more classes take torch's own kernels."""


def softmax(logits_xK: Tensor) -> Tensor:
    """Return softmax over the last dimension, K classes.

    On the CPU torch's own kernel works row by row, and the rows of this field are short: over the first dimension of
    the transposed logits it takes a fifth of the time at K = 10. Elsewhere and in half precision torch's is faster.
    """
    if not _has_short_rows(logits_xK):
        return logits_xK.softmax(-1)
    probs_xK: Tensor = _ShortSoftmax.apply(logits_xK)
    return probs_xK


class _ShortSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_xK: Tensor) -> Tensor:
        probs_xK = logits_xK.movedim(-1, 0).contiguous().softmax(0).movedim(0, -1).contiguous()
        ctx.save_for_backward(probs_xK)
        return probs_xK

    @staticmethod
    def backward(ctx: Any, grad_xK: Tensor) -> Tensor:
        (probs_xK,) = ctx.saved_tensors
        slope_xK = probs_xK * grad_xK
        return cast(Tensor, slope_xK - probs_xK * slope_xK.sum(-1, keepdim=True))


def log_softmax(logits_xK: Tensor) -> Tensor:
    """Return the log of the softmax over the last dimension, written out where torch's kernel works row by row."""
    if not _has_short_rows(logits_xK):
        return logits_xK.log_softmax(-1)
    shifted_xK = logits_xK - logits_xK.detach().amax(-1, keepdim=True)
    return shifted_xK - shifted_xK.exp().sum(-1, keepdim=True).log()


def _has_short_rows(logits_xK: Tensor) -> bool:
    if torch.compiler.is_compiling() or under_transform():  # the compiler makes the best kernels from torch's softmax
        return False
    is_plain = logits_xK.device.type == "cpu" and logits_xK.dtype in (torch.float32, torch.float64)
    return is_plain and logits_xK.numel() > 0 and logits_xK.shape[-1] <= LONGEST_ROW


def softmax_slope(probs_xK: Tensor, logits_xK: Tensor) -> Tensor:
    """Return J(p) · logits, J(p) = diag(p) − p pᵀ: linear in the logits, whose gradient is J(p) times what comes in.

    As the surrogate of `replace_gradient` it applies softmax's Jacobian at any point p of the simplex, without a K×K
    matrix and without logits whose softmax is p. `probs_xK` is a constant.
    """
    probs_xK = probs_xK.detach()
    return probs_xK * (logits_xK - (probs_xK * logits_xK).sum(-1, keepdim=True))
