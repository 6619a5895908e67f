"""Structured output prediction: the lower half of an image from its upper half, through two stochastic layers.

Letters: S samples, B examples, L latents, K classes, D pixels of a half.
"""

import math
from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor

from estimators.base import check_count
from harness.config import DataConfig
from harness.measures import Measure
from harness.tasks.codes import one_hot_samples
from harness.tasks.images import labelled_images
from harness.tasks.latents import LatentUse
from harness.tasks.linear import LinearLayer
from harness.tasks.nesting import NestedCost, added_control_losses
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import Draw, Estimators, LayerProblem, Loss, Task
from harness.tasks.vae import bernoulli_nll

MAX_CODES = 2_048
"""Codes of a layer that the measure evaluates at once, which limits its memory."""
N_COMPLETIONS = 7
"""Samples of the lower half of an image in a picture."""


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
    uses_images = takes_outputs = True
    evaluation_settings = ("n_images", "bound_samples")

    upper: Tensor
    lower: Tensor

    def __init__(self, *, n_latents: int = 20, n_categories: int = 10) -> None:
        """Raise ValueError for impossible sizes."""
        super().__init__()
        self.n_latents = check_count(self.name, "n_latents", n_latents)
        self.n_categories = check_count(self.name, "n_categories", n_categories, at_least=2)

    def layers(self) -> Mapping[str, tuple[int, int]]:
        """Return the two layers, z1 and z2, of the same size."""
        return dict.fromkeys(("z1", "z2"), (self.n_latents, self.n_categories))

    def data(self, config: DataConfig | None) -> Splits:
        """Return the images, binarised as the settings say. Their labels are not used."""
        return labelled_images(config)

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make the three linear layers. An odd row in the middle belongs to the lower half."""
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
        below = self._below(batch, estimators)
        estimate = estimators["z1"](self.logits_1(batch[0]), below, self.context(batch))
        controls = [estimate.control_loss, *below.control_losses]
        return Loss({"cost": estimate.cost_B.mean()}, added_control_losses(controls))

    def _below(self, batch: Batch, estimators: Estimators) -> NestedCost:
        """Return the cost of codes of the first layer: the estimate of the second."""
        return NestedCost(estimators["z2"], self.logits_2, lambda z2: self.cost_2(z2, batch[0]), self.context(batch))

    def gradient_problems(self, batch: Batch, estimators: Estimators) -> Mapping[str, LayerProblem]:
        """Return both layers: the first with the noise of the second, the second below one sample of the first."""
        logits_BLH, context_BX = self.logits_1(batch[0]), self.context(batch)
        first = LayerProblem(logits_BLH, self.n_categories, self._below(batch, estimators), context_BX, is_noisy=True)
        z1_BLK = one_hot_samples(estimators["z1"].class_logits(logits_BLH), 1)[0]
        second = LayerProblem(
            self.logits_2(z1_BLK), self.n_categories, lambda z2: self.cost_2(z2, batch[0]), context_BX
        )
        return {"z1": first, "z2": second}

    def term_names(self) -> tuple[str, ...]:
        """Return the name of the one term."""
        return ("cost",)

    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return the cost with one-hot samples of both layers, each of the second below one of the first."""
        z1_SBLK = draw(self.logits_1(batch[0]), "z1")
        z2_NLK = draw(self.logits_2(z1_SBLK).flatten(0, 1), "z2", 1).squeeze(0)
        return {"cost": self.cost_2(z2_NLK.view(*z1_SBLK.shape[:2], *z2_NLK.shape[1:]), batch[0]).mean(0)}

    def test_measures(self, test: Batch, draw: Draw) -> dict[str, float]:
        """Return `nll`, with m = `evaluation.bound_samples` samples of both layers; 0 counts as 1."""
        m, total = max(1, draw.bound_samples), 0.0
        for x_BD in torch.split(test[0], max(1, MAX_CODES // m)):
            logits_1_BLK = draw.law(self.logits_1(x_BD), "z1")
            chunks = [min(MAX_CODES, m - done) for done in range(0, m, MAX_CODES)]
            cost_SB = torch.cat([self.cost_2(self._samples(logits_1_BLK, draw, n), x_BD) for n in chunks])
            total += (math.log(m) - (-cost_SB.cpu().double()).logsumexp(0)).sum().item()
        return {"nll": total / len(test[0])}

    def pictures(self, test: Batch, draw: Draw, use: LatentUse | None) -> Iterator[tuple[str, Tensor]]:
        """Yield `completions`, a row for each image: itself, and its lower half by N_COMPLETIONS samples, as means."""
        x_RD = test[0]
        z2_SRLK = self._samples(draw.law(self.logits_1(x_RD), "z1"), draw, N_COMPLETIONS)
        images_SRD = x_RD.expand(N_COMPLETIONS + 1, *x_RD.shape).clone()
        images_SRD[1:, :, self.lower] = self.decoder(z2_SRLK.flatten(-2)).sigmoid()
        yield "completions", images_SRD.transpose(0, 1)

    def _samples(self, logits_1_BLK: Tensor, draw: Draw, n_samples: int) -> Tensor:
        """Return samples (S, B, L, K) of the second layer, each below one of the first."""
        logits_2_NLK = draw.law(self.logits_2(one_hot_samples(logits_1_BLK, n_samples)).flatten(0, 1), "z2")
        return one_hot_samples(logits_2_NLK, 1).view(n_samples, len(logits_1_BLK), *logits_2_NLK.shape[1:])


def _unflattened(outputs_xO: Tensor, n_latents: int) -> Tensor:
    return outputs_xO.view(*outputs_xO.shape[:-1], n_latents, -1)
