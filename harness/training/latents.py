"""The use of the latents: perplexity, dead classes and entropy, from the posteriors q(z|x) of the images of a split.

The aggregate posterior of a variable, q(z_l) = the mean over images of q(z_l|x), says which of its classes are in use.
No code is drawn. Values are exact for the split, entropies and divergences in nats.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.events import Latents
from harness.training.vae import probs_and_entropy

DEAD = 0.01
"""A class is dead where the aggregate posterior gives it less than this share of the uniform law's 1/K."""


@dataclass(frozen=True)
class LatentUse:
    """The aggregate posteriors of L variables, and the mean entropy of their posteriors; float64, on the CPU."""

    usage_LK: Tensor
    entropy_L: Tensor

    @property
    def kl_L(self) -> Tensor:
        """The mean over images of KL(q(z_l|x) ‖ uniform) = log K − entropy."""
        return (math.log(self.usage_LK.shape[-1]) - self.entropy_L).clamp_min(0)

    @property
    def perplexity_L(self) -> Tensor:
        """Exponential of the entropy of the aggregate posterior: how many classes are in use, from 1 to K."""
        perplexity_L: Tensor = torch.special.entr(self.usage_LK).sum(-1).exp()
        return perplexity_L

    @property
    def dead_classes_L(self) -> Tensor:
        """How many classes of each variable are dead (`DEAD`)."""
        return (self.usage_LK < DEAD / self.usage_LK.shape[-1]).sum(-1)

    def metrics(self) -> dict[str, float]:
        """Return perplexity, mean over variables; dead classes and entropy of q(z|x), summed over them."""
        return {
            "latent/perplexity": self.perplexity_L.mean().item(),
            "latent/dead_classes": float(self.dead_classes_L.sum()),
            "latent/entropy": self.entropy_L.sum().item(),
        }

    def event(self) -> Latents:
        """Return the values of each variable, aggregate probabilities rounded to 6 digits."""
        return Latents(
            kl=self.kl_L.tolist(),
            perplexity=self.perplexity_L.tolist(),
            entropy=self.entropy_L.tolist(),
            dead_classes=self.dead_classes_L.tolist(),
            usage=[[round(share, 6) for share in shares] for shares in self.usage_LK.tolist()],
        )


def latent_use(batches: Iterable[Tensor]) -> LatentUse:
    """Return how the latents are used, from the logits (B, L, K) of the posteriors of a split, batch by batch."""
    n_images, total = 0, torch.zeros((), dtype=torch.float64)
    for logits_BLK in batches:
        q_BLK, entropy_BL = probs_and_entropy(logits_BLK)
        sums_LJ = torch.cat([q_BLK.sum(0), entropy_BL.sum(0).unsqueeze(-1)], -1)  # J = K + 1: one copy from the device
        total = total + sums_LJ.cpu().double()
        n_images += len(logits_BLK)
    mean_LJ = total / n_images
    return LatentUse(mean_LJ[:, :-1], mean_LJ[:, -1].clamp_min(0))
