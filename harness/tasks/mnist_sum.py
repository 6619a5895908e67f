"""Weak supervision: the digits of several images, learned from nothing but their sum.

Letters: S samples, B examples, N images of an example, D pixels.
"""

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from estimators.base import Cost, check_count
from harness.config import DataConfig
from harness.measures import Measure
from harness.tasks.arguments import check_weight
from harness.tasks.images import labelled_images
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import OneLayerTask

CLASSES = 10


@final
class MnistSum(OneLayerTask):
    """Sum of digits: images of digits of which only the sum is known.

    A network gives logits of the digit in each image, the code is a digit for each, and the cost of a code is 0 if the
    digits have the known sum and else 1: a black box, with E[cost] = 1 − P(sum is right). It is not −log P, which is no
    mean over codes. From that alone even the exact gradient ends where all images are taken for two or three digits;
    the penalty makes the digits of a batch equally frequent, balance · KL(mean of the predicted laws ‖ uniform). The
    measures take the most probable digits.

    Reference   Manhaeve, Dumančić, Kimmig, Demeester, De Raedt (2018), "DeepProbLog", arXiv:1805.10872, section 6,
                experiment T1; as a task for gradient estimators: De Smet, Sansone, Zuidberg Dos Martires (2023),
                "Differentiable Sampling of Categorical Distributions Using the CatLog-Derivative Trick",
                arXiv:2311.12569, section 5.
    Departures  0 or 1 as cost, where they take the cross-entropy of an estimated probability; hence the penalty. One
                hidden layer, no convolutions. Every image of a split is in one example for each of `pairings`
                permutations, which are seeded; those that are left over are in none.

    n_images   N, images of an example
    pairings   how often each training image is used, each time among others
    hidden     ReLU units of the network's one hidden layer
    balance    weight of the penalty, 0 for none
    """

    name = "mnist_sum"
    reference = 'Manhaeve et al. (2018), "DeepProbLog", arXiv:1805.10872, §6; De Smet et al. (2023), arXiv:2311.12569'
    measures = (
        Measure("digit_accuracy", "accuracy of single digits", better="higher", band=0.01),
        Measure("sum_accuracy", "accuracy of the sum", better="higher", band=0.01),
    )
    measured_on = "mode"
    terms = ("mismatch", "balance")
    needs_one_hot = black_box = uses_images = True

    def __init__(self, *, n_images: int = 2, pairings: int = 1, hidden: int = 128, balance: float = 1.0) -> None:
        """Raise ValueError for impossible sizes."""
        super().__init__()
        self.n_latents = check_count(self.name, "n_images", n_images)
        self.n_categories = CLASSES
        self.pairings = check_count(self.name, "pairings", pairings)
        self.hidden = check_count(self.name, "hidden", hidden)
        self.balance = check_weight(self.name, "balance", balance)

    def data(self, config: DataConfig | None) -> Splits:
        """Return images (N, D), their sum, and the digits, which are for the measures alone.

        Raises ValueError for a data set whose labels are no digits, and for fewer images than an example has.
        """
        found = labelled_images(config, self.name)
        return Splits(
            train=self._grouped(found.train, self.pairings),
            validation=None if found.validation is None else self._grouped(found.validation),
            test=self._grouped(found.test),
            resample=found.resample,
        )

    def _grouped(self, split: Batch, pairings: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        images_ND, digit_N = split
        n_examples = len(images_ND) // self.n_latents
        if digit_N.max() >= CLASSES or not n_examples:
            raise ValueError(
                f"{self.name}: expected at least {self.n_latents} images of digits, got {len(images_ND)} with labels up"
                f" to {int(digit_N.max())}."
            )
        noise = torch.Generator().manual_seed(0)
        orders = [torch.randperm(len(images_ND), generator=noise) for _ in range(pairings)]
        index_EN = torch.cat([order[: n_examples * self.n_latents] for order in orders]).view(-1, self.n_latents)
        return images_ND[index_EN], digit_N[index_EN].sum(-1), digit_N[index_EN]

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make the network of one image."""
        n_pixels = splits.train[0].shape[-1]
        self.classifier = nn.Sequential(nn.Linear(n_pixels, self.hidden), nn.ReLU(), nn.Linear(self.hidden, CLASSES))

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, N, 10) of the digit in each image."""
        logits_BNK: Tensor = self.classifier(batch[0])
        return logits_BNK

    def cost(self, batch: Batch) -> Cost:
        """Return 1 where the digits of a code have another sum than is known, else 0."""
        sum_B = batch[1]

        def cost(z_SBNK: Tensor) -> Tensor:
            return (z_SBNK.argmax(-1).sum(-1) != sum_B).to(z_SBNK.dtype)

        return cost

    def penalty(self, batch: Batch, logits_BLK: Tensor) -> Tensor:
        """Return the weighted KL of the mean prediction of a batch to the uniform law, a scalar."""
        mean_K = logits_BLK.softmax(-1).mean((0, 1))
        kl: Tensor = math.log(CLASSES) + torch.special.xlogy(mean_K, mean_K).sum()
        return self.balance * kl

    def measure(self, batch: Batch, z_BLK: Tensor) -> dict[str, Tensor]:
        """Return the share of right digits, and whether the sum is right."""
        digit_BN = z_BLK.argmax(-1)
        return {
            "digit_accuracy": (digit_BN == batch[2]).float().mean(-1),
            "sum_accuracy": digit_BN.sum(-1) == batch[1],
        }
