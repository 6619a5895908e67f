"""The use of the latents: perplexity, dead classes and entropy, from the posteriors q(z|x) of the examples of a split.

The aggregate posterior of a variable, q(z_l) = the mean over images of q(z_l|x), says which of its classes are in use.
No code is drawn. Values are exact for the split, entropies and divergences in nats.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.events import Latents
from harness.tasks.codes import probs_and_entropy

DEAD = 0.01
"""A class is dead where the aggregate posterior gives it less than this share of the uniform law's 1/K."""


@dataclass(frozen=True)
class LatentUse:
    """The aggregate posteriors of L variables, and the mean entropy of their posteriors; float64, on the CPU.

    `n_classes` are the classes of each variable, by default K; rows of `usage_LK` with fewer end with zeros.
    """

    usage_LK: Tensor
    entropy_L: Tensor
    n_classes: tuple[int, ...] = ()

    @property
    def n_classes_L(self) -> list[int]:
        """The classes of each variable."""
        n_latents, n_categories = self.usage_LK.shape
        return list(self.n_classes) or [n_categories] * n_latents

    @property
    def kl_L(self) -> Tensor:
        """The mean over examples of KL(q(z_l|x) ‖ uniform) = log K − entropy."""
        logs_L = torch.tensor([math.log(n) for n in self.n_classes_L], dtype=torch.float64)
        return (logs_L - self.entropy_L).clamp_min(0)

    @property
    def perplexity_L(self) -> Tensor:
        """Exponential of the entropy of the aggregate posterior: how many classes are in use, from 1 to K."""
        perplexity_L: Tensor = torch.special.entr(self.usage_LK).sum(-1).exp()
        return perplexity_L

    @property
    def dead_classes_L(self) -> Tensor:
        """How many classes of each variable are dead (`DEAD`)."""
        sizes_L1 = torch.tensor(self.n_classes_L).unsqueeze(-1)
        exists_LK = torch.arange(self.usage_LK.shape[-1]) < sizes_L1
        return (exists_LK & (self.usage_LK < DEAD / sizes_L1.double())).sum(-1)

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
            usage=[
                [round(share, 6) for share in shares[:n]]
                for shares, n in zip(self.usage_LK.tolist(), self.n_classes_L, strict=True)
            ],
        )


class LatentSums:
    """The sums from which the use of the latents of one layer follows, batch by batch."""

    def __init__(self) -> None:
        self._n_examples, self._total_LJ = 0, torch.zeros((), dtype=torch.float64)

    def add(self, logits_BLK: Tensor) -> None:
        """Count the posteriors of a batch."""
        q_BLK, entropy_BL = probs_and_entropy(logits_BLK)
        sums_LJ = torch.cat([q_BLK.sum(0), entropy_BL.sum(0).unsqueeze(-1)], -1)  # J = K + 1: one copy from the device
        self._total_LJ = self._total_LJ + sums_LJ.cpu().double()
        self._n_examples += len(logits_BLK)

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the aggregate posteriors (L, K) and the mean entropies (L,)."""
        mean_LJ = self._total_LJ / self._n_examples
        return mean_LJ[:, :-1], mean_LJ[:, -1].clamp_min(0)


def latent_use(layers: Iterable[LatentSums]) -> LatentUse:
    """Return how the latents of all layers are used, those of the first layer first."""
    usages, entropies = zip(*(sums.means() for sums in layers), strict=True)
    widest = max(usage_LK.shape[-1] for usage_LK in usages)
    padded = [pad(usage_LK, (0, widest - usage_LK.shape[-1])) for usage_LK in usages]
    sizes = tuple(usage_LK.shape[-1] for usage_LK in usages for _ in range(len(usage_LK)))
    return LatentUse(torch.cat(padded), torch.cat(entropies), sizes)
