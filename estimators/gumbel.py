"""The one source of noise: Gumbel perturbations, and the categorical samples that they give.

Noise is drawn in float32 or wider whatever the dtype of the logits, and as -log E with E ~ Exp(1): the familiar
-log(-log(u + 1e-20) + 1e-20) fails in half precision, where 1e-20 rounds to 0 (float16) and u often does (bfloat16).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def perturb(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return x_SBLK = logits + G, G iid Gumbel(0, 1), in float32 or wider; its argmax is a sample of softmax(logits).

    Differentiable in the logits. Reference: Maddison, Tarlow, Minka (2014), "A* Sampling", arXiv:1411.0030, section 2.
    """
    dtype = torch.promote_types(logits_BLK.dtype, torch.float32)
    noise = torch.empty((n_samples, *logits_BLK.shape), dtype=dtype, device=logits_BLK.device)
    noise.exponential_().clamp_(min=torch.finfo(dtype).tiny)
    return logits_BLK - noise.log_()


def perturb_given(log_probs_BLK: Tensor, class_SBL: Tensor) -> tuple[Tensor, Tensor]:
    """Return z̃_SBLK, distributed as log_probs + G given that its argmax is `class_SBL`, and its slope ∂z̃/∂log_probs.

    With E iid Exp(1) and i the class, z̃_i = −log E_i and z̃_j = −log(E_j/p_j + E_i). The noise held fixed, z̃_j depends
    on log p_j alone, so the slope has the shape of z̃; it is 0 at i, which needs no logarithm of a sum of p: they sum to
    1. Reference: Maddison, Tarlow, Minka (2014), "A* Sampling", arXiv:1411.0030, section 2, truncated Gumbels.
    """
    log_noise_SBLK = -perturb(torch.zeros_like(log_probs_BLK), len(class_SBL))
    chosen_SBL1 = class_SBL.unsqueeze(-1)
    log_top_SBL1 = log_noise_SBLK.gather(-1, chosen_SBL1)
    log_own_SBLK = log_noise_SBLK - log_probs_BLK
    z_SBLK = torch.logaddexp(log_own_SBLK, log_top_SBL1).neg_().scatter_(-1, chosen_SBL1, -log_top_SBL1)
    return z_SBLK, (log_own_SBLK - log_top_SBL1).sigmoid_().scatter_(-1, chosen_SBL1, 0.0)


def sample_classes(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return class numbers (S, B, L), each drawn from its own softmax(logits)."""
    return perturb(logits_BLK.detach(), n_samples).argmax(-1)


def one_hot(class_SBL: Tensor, like: Tensor) -> Tensor:
    """Return z_SBLK with exactly one 1 for each latent, whatever the ties; K and dtype are those of `like`."""
    zeros = like.new_zeros((*class_SBL.shape, like.shape[-1]))
    return zeros.scatter_(-1, class_SBL.unsqueeze(-1), 1.0)


def log_prob(logits_BLK: Tensor, class_SBL: Tensor) -> Tensor:
    """Return the log-probability (S, B) of every code, in float32 or wider; differentiable in the logits.

    Gathered rather than multiplied by one-hot codes, so that a class of probability 0 gives no 0 · -inf.
    """
    dtype = torch.promote_types(logits_BLK.dtype, torch.float32)
    log_probs_BLK = F.log_softmax(logits_BLK, dim=-1, dtype=dtype)
    log_probs_SBLK = log_probs_BLK.expand(*class_SBL.shape, -1)
    return log_probs_SBLK.gather(-1, class_SBL.unsqueeze(-1)).squeeze(-1).sum(-1)
