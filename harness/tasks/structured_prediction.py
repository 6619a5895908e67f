"""Structured output prediction: the lower half of an image from its upper half, through two stochastic layers.

Letters: S samples, B examples, L latents, K classes, D pixels of a half.
"""

import math
from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from estimators.base import check_count
from harness.config import DataConfig
from harness.datasets.load import binarize_batch, load
from harness.measures import Measure
from harness.tasks.nesting import NestedCost, added_control_losses
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import Draw, Estimators, Loss, Task
from harness.training.linear import LinearLayer
from harness.training.vae import bernoulli_nll

MAX_CODES = 4_096
"""Codes of a layer that are evaluated at once, which limits the memory of an evaluation."""


@final
class StructuredPrediction(Task):
    """Structured output prediction: the lower half of an image from the upper half.

    x_upper → logits_1, z_1 → logits_2, z_2 → pixels of the lower half; every arrow is linear. There is no posterior:
    the loss is E[−log p(lower | z_2)] with codes from the prior of both layers, and the measure is
    −log E[p(lower | z_2)] by `evaluation.bound_samples` samples, which tends to the likelihood from above.

    Reference   Jang, Gu, Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144,
                section 4.1 and table 1; earlier Raiko, Berglund, Alain, Dinh (2015), "Techniques for Learning Binary
                Stochastic Feedforward Neural Networks", arXiv:1406.2989.
    Form        392–(20×10)–(20×10)–392; with n_latents=200, n_categories=2 the Bernoulli form 392–200–200–392.
    Departures  a Bernoulli variable is a pair of classes: the next layer gets the one-hot pair, not one bit, and has a
                weight for each of the two. Binarisation, optimiser and epochs are settings of the grid.

    n_latents, n_categories   variables of each layer, and their classes
    """

    name = "structured_prediction"
    reference = 'Jang, Gu, Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144, §4.1'
    measures = (Measure("nll", "−log p(lower | upper)", "nats per image", band=0.5, validation="loss"),)
    uses_images = True
    takes_outputs = True

    def __init__(self, *, n_latents: int = 20, n_categories: int = 10) -> None:
        """Raise ValueError for impossible sizes."""
        super().__init__()
        self.n_latents = check_count(self.name, "n_latents", n_latents)
        self.n_categories = check_count(self.name, "n_categories", n_categories, at_least=2)

    def layers(self) -> Mapping[str, tuple[int, int]]:
        """Return the two layers, z1 and z2, of the same size."""
        return dict.fromkeys(("z1", "z2"), (self.n_latents, self.n_categories))

    def data(self, config: DataConfig | None) -> Splits:
        """Return the images, binarised as the settings say."""
        found = load(config or DataConfig())
        return Splits(
            train=found.train_ND,
            validation=found.validation_ND if len(found.validation_ND) else None,
            test=found.test_ND,
            resample=lambda x_BD, generator: binarize_batch(x_BD, found.binarization, generator),
            image_shape=found.image_shape,
        )

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make the three linear layers. An odd row in the middle belongs to the lower half."""
        self.image_shape = splits.image_shape
        place = torch.arange(math.prod(splits.image_shape)).view(splits.image_shape)
        middle = splits.image_shape[-2] // 2
        upper, lower = place[..., :middle, :].flatten(), place[..., middle:, :].flatten()
        self.register_buffer("upper", upper, persistent=False)
        self.register_buffer("lower", lower, persistent=False)
        code = self.n_latents * self.n_categories
        self.first = LinearLayer(len(upper), self.n_latents * n_outputs["z1"])
        self.second = LinearLayer(code, self.n_latents * n_outputs["z2"])
        self.decoder = LinearLayer(code, len(lower))

    def logits_1(self, x_BD: Tensor) -> Tensor:
        """Return the logits (B, L, H) of the first layer, of whole images."""
        return _unflattened(self.first(x_BD[..., self.upper]), self.n_latents)

    def logits_2(self, z1_xLK: Tensor) -> Tensor:
        """Return the logits (…, L, H) of the second layer, of codes of the first."""
        return _unflattened(self.second(z1_xLK.flatten(-2)), self.n_latents)

    def cost_2(self, z2_xBLK: Tensor, x_BD: Tensor) -> Tensor:
        """Return −log p(lower half | z_2), nats (…, B), of codes of the second layer and whole images."""
        return bernoulli_nll(self.decoder(z2_xBLK.flatten(-2)), x_BD[..., self.lower])

    def loss(self, batch: Batch, estimators: Estimators) -> Loss:
        """Return the expected cost by both estimators, the second nested in the first."""
        x_BD = _images(batch)
        context_BX = x_BD[..., self.upper]
        below = NestedCost(estimators["z2"], self.logits_2, lambda z2: self.cost_2(z2, x_BD), context_BX)
        estimate = estimators["z1"](self.logits_1(x_BD), below, context_BX)
        controls = [estimate.control_loss, *below.control_losses]
        return Loss({"cost": estimate.cost_B.mean()}, added_control_losses(controls))

    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return `loss` with one-hot samples of both layers, and `nll` with `bound_samples` of them."""
        x_BD = _images(batch)
        loss_B = self._costs(x_BD, draw, draw.n_samples).mean(0)
        costs_SB = self._costs(x_BD, draw, draw.bound_samples)
        return {"loss": loss_B, "nll": math.log(len(costs_SB)) - (-costs_SB.double()).logsumexp(0)}

    def pictures(self, batch: Batch, draw: Draw) -> Iterator[tuple[str, Tensor]]:
        """Yield `completions`: an image, and its lower half by seven samples of both layers, as probabilities."""
        x_BD = _images(batch)
        z2_SBLK = self._codes(self.logits_1(x_BD), draw, 7)
        whole_SBD = x_BD.expand(7, *x_BD.shape).clone()
        whole_SBD[..., self.lower] = self.decoder(z2_SBLK.flatten(-2)).sigmoid()
        images_BCD = torch.cat([x_BD.unsqueeze(0), whole_SBD]).transpose(0, 1)
        yield "completions", images_BCD.unflatten(-1, self.image_shape)

    def _costs(self, x_BD: Tensor, draw: Draw, n_samples: int) -> Tensor:
        """Return the costs (S, B) of samples of both layers, some at a time."""
        logits_BLH = self.logits_1(x_BD)
        n_examples = max(1, MAX_CODES // n_samples)
        most = max(1, MAX_CODES // min(n_examples, len(x_BD)))
        parts = [min(most, n_samples - done) for done in range(0, n_samples, most)]
        found = []
        for some_BD, some_BLH in zip(x_BD.split(n_examples), logits_BLH.split(n_examples), strict=True):
            found.append(torch.cat([self.cost_2(self._codes(some_BLH, draw, n), some_BD) for n in parts]))
        return torch.cat(found, 1)

    def _codes(self, logits_BLH: Tensor, draw: Draw, n_samples: int) -> Tensor:
        """Return samples (S, B, L, K) of the second layer, each below a sample of its own of the first."""
        z1_SBLK = draw(logits_BLH, "z1", n_samples)
        logits_2_NLH = self.logits_2(z1_SBLK).flatten(0, 1)
        return draw(logits_2_NLH, "z2", 1).squeeze(0).unflatten(0, z1_SBLK.shape[:2])


def _images(batch: Batch) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


def _unflattened(outputs_xO: Tensor, n_latents: int) -> Tensor:
    return outputs_xO.unflatten(-1, (n_latents, outputs_xO.shape[-1] // n_latents))
