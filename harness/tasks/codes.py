"""One-hot codes of categorical variables: draws, probabilities, entropy, and the KL to the uniform law.

Letters: S samples, B examples, L latents, K classes. Divergences and entropies are in nats.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor


def kl_to_uniform(logits_BLK: Tensor) -> Tensor:
    """Return KL(q ‖ uniform) summed over latents, shape (B,): Σ_l Σ_k π (log π + log K)."""
    kl_B: Tensor = _KLToUniform.apply(logits_BLK)
    return kl_B


LOWEST = -1e30
"""A logit, less the largest, that stands for −∞: finite, and its probability is 0."""


class _KLToUniform(torch.autograd.Function):
    """Σ π log π = Σ π a − log Σ exp a with a = logits − max; its slope is π (a − Σ π a), from the same tensors."""

    @staticmethod
    def forward(ctx: Any, logits_BLK: Tensor) -> Tensor:
        shifted_BLK, total_BL1, probs_BLK, mean_BL1 = _KLToUniform.parts(logits_BLK)
        ctx.save_for_backward(logits_BLK, shifted_BLK, probs_BLK, mean_BL1)
        n_latents, n_categories = logits_BLK.shape[-2:]
        return (mean_BL1 - total_BL1.log()).sum((-2, -1)) + n_latents * math.log(n_categories)

    @staticmethod
    def backward(ctx: Any, grad_B: Tensor) -> Tensor:
        logits_BLK, shifted_BLK, probs_BLK, mean_BL1 = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative: what forward kept is no function of the logits
            shifted_BLK, _, probs_BLK, mean_BL1 = _KLToUniform.parts(logits_BLK)
        return cast(Tensor, (shifted_BLK - mean_BL1) * probs_BLK * grad_B[..., None, None])

    @staticmethod
    def parts(logits_BLK: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, Σ exp a, π and Σ π a."""
        shifted_BLK = logits_BLK - logits_BLK.detach().amax(-1, keepdim=True)
        shifted_BLK = shifted_BLK.clamp_min_(LOWEST)  # a mask of −∞ times a probability of 0 would be NaN
        exp_BLK = shifted_BLK.exp()
        total_BL1 = exp_BLK.sum(-1, keepdim=True)
        probs_BLK = exp_BLK / total_BL1
        return shifted_BLK, total_BL1, probs_BLK, (probs_BLK * shifted_BLK).sum(-1, keepdim=True)


def probs_and_entropy(logits_BLK: Tensor) -> tuple[Tensor, Tensor]:
    """Return π = softmax(logits), and its entropy −Σ_k π log π of shape (B, L), in nats."""
    _, total_BL1, probs_BLK, mean_BL1 = _KLToUniform.parts(logits_BLK)
    return probs_BLK, (total_BL1.log() - mean_BL1).squeeze(-1)


def one_hot_samples(logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Draw one-hot codes z_SBLK from q with torch's default generator (Gumbel-max in float32 or wider).

    Exponential noise is −log u, a third of the time of `exponential_` on the CPU. In float32, u is a multiple of 2⁻²⁴
    in [0, 1) and 0 is taken as 2⁻²⁵, so a probability is off by at most 2⁻²⁴.
    """
    wide_BLK = logits_BLK.detach().to(torch.promote_types(logits_BLK.dtype, torch.float32))
    uniform = torch.rand((n_samples, *wide_BLK.shape), dtype=wide_BLK.dtype, device=wide_BLK.device)
    exponential = uniform.clamp_(min=torch.finfo(wide_BLK.dtype).eps / 4).log_().neg_()
    index_SBL = (wide_BLK - exponential.log_()).max(-1).indices  # argmax(-1) takes three times as long on the CPU
    return torch.zeros_like(exponential, dtype=logits_BLK.dtype).scatter_(-1, index_SBL.unsqueeze(-1), 1.0)
