"""The one source of noise: Gumbel perturbations, and the categorical samples that they give.

Noise is drawn in float32 or wider whatever the dtype of the logits, and as -log E with E ~ Exp(1): the familiar
-log(-log(u + 1e-20) + 1e-20) fails in half precision, where 1e-20 rounds to 0 (float16) and u often does (bfloat16).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.simplex import log_softmax
from estimators.transforms import under_transform

LOWEST = -1e30
"""The value that replaces log-probabilities and logits of -inf where their differences and products must be numbers."""


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Return the tensor's own dtype, float32 in the place of a narrower one."""
    return torch.promote_types(tensor.dtype, torch.float32)


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 or wider."""
    return tensor.to(wide_dtype(tensor))


def exponential(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return E ~ Exp(1) of that shape, positive and finite, in float32 or wider, on the device of `like`.

    On the CPU it is −log u, a fifth of the time of `exponential_`. In float32, u is a multiple of 2⁻²⁴ in [0, 1), and 0
    is taken as 2⁻²⁵: every probability is off by at most 2⁻²⁴, as with every float32 generator that
    transforms uniform numbers.
    """
    dtype = wide_dtype(like)
    if like.device.type != "cpu":
        noise = torch.empty(tuple(shape), dtype=dtype, device=like.device)
        return noise.exponential_(generator=generator).clamp_(min=torch.finfo(dtype).tiny)
    uniform = torch.rand(tuple(shape), dtype=dtype, generator=generator)  # not in place: vmap can draw it
    smallest = torch.finfo(dtype).eps / 4
    uniform = uniform.clamp(min=smallest) if under_transform() else uniform.clamp_(min=smallest)
    return uniform.log_().neg_()


def perturb(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return x_SBLK = logits + G, G iid Gumbel(0, 1), in float32 or wider; its argmax is a sample of softmax(logits).

    Differentiable in the logits. Reference: Maddison, Tarlow, Minka (2014), "A* Sampling", arXiv:1411.0030, section 2.
    """
    return logits_BLK - exponential((n_samples, *logits_BLK.shape), like=logits_BLK).log_()


def sample_classes(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return class numbers (S, B, L), each drawn from its own softmax(logits)."""
    return argmax(perturb(logits_BLK.detach(), n_samples))


def argmax(x_xK: Tensor) -> Tensor:
    """Return the class number of the largest entry, (…, K) → (…), in a third of the time of `argmax(-1)` on the CPU."""
    return x_xK.max(-1).indices


def perturb_given(logits_BLK: Tensor, class_SBL: Tensor, n_draws: int) -> Tensor:
    """Return x_MSBLK = log softmax(logits) + G, M = n_draws, G drawn given that its argmax is `class_SBL`.

    The logits are normalised, so that the largest entry is Gumbel(0, 1); a softmax or argmax of x is the same. Logits
    may have a sample dimension of their own, (S, B, L, K). Float32 or wider; differentiable in the logits.
    Reference: Paulus, Maddison, Krause (2021), arXiv:2010.04838, section 3.
    """
    return given(
        logits_BLK,
        class_SBL,
        exponential((n_draws, *class_SBL.shape, logits_BLK.shape[-1]), like=logits_BLK).log_(),
    )


def given(logits_BLK: Tensor, class_SBL: Tensor, noise: Tensor) -> Tensor:
    """Return what `perturb_given` does, from the logarithms of its noise E ~ Exp(1), (M, S, B, L, K)."""
    index = class_SBL.unsqueeze(-1).expand(*noise.shape[:-1], 1)
    largest = noise.gather(-1, index)
    # -log(E_j/π_j + E_i) for all others, without the exponential of a logit
    others = torch.logaddexp(noise - log_softmax(wide(logits_BLK)), largest)
    return -others.scatter(-1, index, largest)


def one_hot(class_SBL: Tensor, like: Tensor) -> Tensor:
    """Return z_SBLK with exactly one 1 for each latent, whatever the ties; K and dtype are those of `like`."""
    zeros = class_SBL.new_zeros((*class_SBL.shape, like.shape[-1]), dtype=like.dtype)  # vmap may map the classes alone
    if under_transform():
        return zeros.scatter(-1, class_SBL.unsqueeze(-1), 1.0)
    return zeros.scatter_(-1, class_SBL.unsqueeze(-1), 1.0)


def put(into_xK: Tensor, index_xJ: Tensor, values_xJ: Tensor) -> Tensor:
    """Return the tensor with values at some places of its last dimension, changed in place where vmap is not at work.

    Under vmap, torch would change one example after the other in place.
    """
    if under_transform():
        return into_xK.scatter(-1, index_xJ, values_xJ)
    return into_xK.scatter_(-1, index_xJ, values_xJ)


def log_prob(logits_BLK: Tensor, class_SBL: Tensor) -> Tensor:
    """Return the log-probability (S, B) of every code, in float32 or wider; differentiable in the logits.

    It gathers instead of multiplying by one-hot codes, so that a class of probability 0 gives no 0 · -inf.
    """
    log_probs_BLK = log_softmax(wide(logits_BLK))
    log_probs_SBLK = log_probs_BLK.expand(*class_SBL.shape, -1)
    return log_probs_SBLK.gather(-1, class_SBL.unsqueeze(-1)).squeeze(-1).sum(-1)
