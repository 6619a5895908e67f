"""The map from logits to the simplex that every family shares."""

import torch
from torch import Tensor


def softmax(logits_xK: Tensor) -> Tensor:
    """Return softmax over the last dimension, K classes.

    On the CPU torch's own kernel works row by row, and the rows of this field are short: spelled out, forward and
    backward take half its time at K = 10. Elsewhere, and in half precision, torch's kernel is the better one.
    """
    if logits_xK.device.type != "cpu" or logits_xK.dtype not in (torch.float32, torch.float64) or not logits_xK.numel():
        return logits_xK.softmax(-1)
    exp_xK = (logits_xK - logits_xK.amax(-1, keepdim=True).detach()).exp()
    return exp_xK / exp_xK.sum(-1, keepdim=True)


def softmax_slope(probs_xK: Tensor, logits_xK: Tensor) -> Tensor:
    """Return J(p) · logits, J(p) = diag(p) − p pᵀ: linear in the logits, whose gradient is J(p) times what comes in.

    As the surrogate of `replace_gradient` it applies softmax's Jacobian at any point p of the simplex, without a K×K
    matrix and without logits that have p as their softmax. `probs_xK` is taken as a constant.
    """
    probs_xK = probs_xK.detach()
    return probs_xK * (logits_xK - (probs_xK * logits_xK).sum(-1, keepdim=True))
