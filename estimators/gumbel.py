"""The one source of noise: Gumbel perturbations, and the categorical samples that they give.

Noise is drawn in float32 or wider whatever the dtype of the logits, and as -log E with E ~ Exp(1): the familiar
-log(-log(u + 1e-20) + 1e-20) fails in half precision, where 1e-20 rounds to 0 (float16) and u often does (bfloat16).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LOWEST = -1e30
"""Log-probabilities and logits of -inf end here, where differences and products of them are to be numbers."""


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Return the tensor's own dtype, float32 in the place of a narrower one."""
    return torch.promote_types(tensor.dtype, torch.float32)


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 or wider."""
    return tensor.to(wide_dtype(tensor))


def perturb(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return x_SBLK = logits + G, G iid Gumbel(0, 1), in float32 or wider; its argmax is a sample of softmax(logits).

    Differentiable in the logits. Reference: Maddison, Tarlow, Minka (2014), "A* Sampling", arXiv:1411.0030, section 2.
    """
    dtype = wide_dtype(logits_BLK)
    noise = torch.empty((n_samples, *logits_BLK.shape), dtype=dtype, device=logits_BLK.device)
    noise.exponential_().clamp_(min=torch.finfo(dtype).tiny)
    return logits_BLK - noise.log_()


def sample_classes(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return class numbers (S, B, L), each drawn from its own softmax(logits)."""
    return perturb(logits_BLK.detach(), n_samples).argmax(-1)


def perturb_given(logits_BLK: Tensor, class_SBL: Tensor, n_draws: int) -> Tensor:
    """Return x_MSBLK = log softmax(logits) + G, M = n_draws, G drawn given that its argmax is `class_SBL`.

    Normalised logits, so that the largest entry is Gumbel(0, 1); a softmax or an argmax of x sees no difference. Logits
    may have a sample dimension of their own, (S, B, L, K). Float32 or wider; differentiable in the logits.
    Reference: Paulus, Maddison, Krause (2021), arXiv:2010.04838, section 3.
    """
    dtype = wide_dtype(logits_BLK)
    noise = torch.empty((n_draws, *class_SBL.shape, logits_BLK.shape[-1]), dtype=dtype, device=logits_BLK.device)
    noise.exponential_().clamp_(min=torch.finfo(dtype).tiny).log_()
    index = class_SBL.unsqueeze(-1).expand(*noise.shape[:-1], 1)
    largest = noise.gather(-1, index)
    # -log(E_j/π_j + E_i) for all others, without the exponential of a logit
    others = torch.logaddexp(noise - F.log_softmax(logits_BLK, dim=-1, dtype=dtype), largest)
    return -others.scatter(-1, index, largest)


def one_hot(class_SBL: Tensor, like: Tensor) -> Tensor:
    """Return z_SBLK with exactly one 1 for each latent, whatever the ties; K and dtype are those of `like`."""
    zeros = like.new_zeros((*class_SBL.shape, like.shape[-1]))
    return zeros.scatter_(-1, class_SBL.unsqueeze(-1), 1.0)


def log_prob(logits_BLK: Tensor, class_SBL: Tensor) -> Tensor:
    """Return the log-probability (S, B) of every code, in float32 or wider; differentiable in the logits.

    Gathered rather than multiplied by one-hot codes, so that a class of probability 0 gives no 0 · -inf.
    """
    dtype = wide_dtype(logits_BLK)
    log_probs_BLK = F.log_softmax(logits_BLK, dim=-1, dtype=dtype)
    log_probs_SBLK = log_probs_BLK.expand(*class_SBL.shape, -1)
    return log_probs_SBLK.gather(-1, class_SBL.unsqueeze(-1)).squeeze(-1).sum(-1)
