"""The default task: a categorical variational auto-encoder of images.

Its settings stand in the sections `data` and `model` of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from harness.config import DataConfig
from harness.datasets.load import binarize_batch, load_cached
from harness.measures import VAE_MEASURES, Measure
from harness.tasks.backbones import Backbone
from harness.tasks.codes import kl_to_uniform, one_hot_samples
from harness.tasks.latents import LatentUse
from harness.tasks.linear import Precision
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import LAYER, Cost, Draw, OneLayerTask
from harness.tasks.vae import CategoricalVAE, bernoulli_nll

MAX_DECODED = 2_048
"""Codes decoded at once for bounds: this limits memory, and keeps the pixels of a chunk in the cache."""
MAX_ROWS, MAX_COLUMNS = 8, 16
"""The most latents, and classes of each, that a traversal shows."""


class VAETask(OneLayerTask):
    """Categorical VAE: reconstruct images through L latents of K classes, with the KL to the uniform prior.

    The loss is the negative ELBO: E_q[−log p(x|z)] + KL(q(z|x) ‖ uniform), in nats per image. Jang, Gu and Poole
    (2017), "Categorical reparameterization with Gumbel-softmax", arXiv:1611.01144, section 4.2.
    """

    name = "categorical_vae"
    reference = "Jang, Gu and Poole (2017), arXiv:1611.01144, section 4.2"
    measures: ClassVar[tuple[Measure, ...]] = VAE_MEASURES
    terms = ("bce", "kl")
    loss_name = "neg_elbo"
    uses_images = has_bound = takes_outputs = sums_biases = True
    evaluation_settings = ("n_images", "bound_samples")

    vae: CategoricalVAE

    def __init__(
        self,
        *,
        n_latents: int = 20,
        n_categories: int = 10,
        hidden: Sequence[int] = (512, 256),
        activation: str = "relu",
        logits_activation: str = "identity",
        precision: Precision = "float32",
        backbone: Backbone = "mlp",
        channels: Sequence[int] = (32, 64),
    ) -> None:
        super().__init__()
        self.n_latents, self.n_categories = n_latents, n_categories
        self._settings: dict[str, Any] = {
            "hidden": hidden,
            "activation": activation,
            "logits_activation": logits_activation,
            "precision": precision,
            "backbone": backbone,
            "channels": channels,
        }

    def data(self, config: DataConfig | None) -> Splits:
        """Return the images that the section `data` names. Raises DataError if they are missing or damaged."""
        images = load_cached(config or DataConfig())
        return Splits(
            train=images.train_ND,
            validation=images.validation_ND if len(images.validation_ND) else None,
            test=images.test_ND,
            resample=_bernoulli if images.binarization == "resampled" else None,
            image_shape=images.image_shape,
        )

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make encoder and decoder for the pixels of the images."""
        self.vae = CategoricalVAE(
            n_pixels=cast(Tensor, splits.test).shape[1],
            image_shape=splits.image_shape,
            n_latents=self.n_latents,
            n_categories=self.n_categories,
            n_outputs=n_outputs[LAYER],
            **self._settings,
        )

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of q(z|x), or H numbers for each latent: (B, L, H)."""
        return self.vae.encode(cast(Tensor, batch))

    def cost(self, batch: Batch) -> Cost:
        """Return z_SBLK -> −log p(x|z), (S, B), in nats."""
        return self.vae.reconstruction_cost(cast(Tensor, batch))

    def penalty(self, batch: Batch, logits_BLK: Tensor) -> Tensor:
        """Return the KL to the uniform prior, (B,), in nats."""
        return kl_to_uniform(logits_BLK)

    def context(self, batch: Batch) -> Tensor:
        """Return the images (B, D)."""
        return cast(Tensor, batch)

    def code_costs(self, batch: Batch, z_NLK: Tensor) -> Tensor:
        """Return −log p(x|z), (N, B), of every code for every image: each code is decoded once."""
        return code_costs(self.vae, z_NLK, cast(Tensor, batch))

    def test_measures(self, test: Batch, draw: Draw) -> dict[str, float]:
        """Return the importance-weighted bound with k = `evaluation.bound_samples`, if that is not 0."""
        k = draw.bound_samples
        return {"neg_bound": neg_bound(self.vae, draw.law, cast(Tensor, test), k)} if k else {}

    def pictures(self, test: Batch, draw: Draw, use: LatentUse | None) -> Iterator[tuple[str, Tensor]]:
        """Yield reconstructions of the images from one-hot samples, and samples of the prior.

        At the end also the images themselves, before them, and traversals of the latents with the most KL after them.
        """
        x_BD, decode = cast(Tensor, test), self.vae.decode
        if use is not None:
            yield "originals", x_BD.unsqueeze(0)
        codes = one_hot_samples(draw.law(self.vae.encode(x_BD)), 1)[0]
        prior = one_hot_samples(codes.new_zeros(len(x_BD), self.n_latents, self.n_categories), 1)[0]
        yield "reconstructions", torch.sigmoid(decode(codes)).unsqueeze(0)
        yield "prior_samples", torch.sigmoid(decode(prior)).unsqueeze(0)
        if use is not None:
            logits_LK = draw.law(self.vae.encode(x_BD[:1]))[0]
            yield "traversals", torch.sigmoid(decode(traversals(logits_LK, use.kl_L)))

    def network(self) -> CategoricalVAE:
        """Return encoder and decoder."""
        return self.vae


def _bernoulli(batch: Batch, generator: torch.Generator | None) -> Batch:
    return binarize_batch(cast(Tensor, batch), "resampled", generator)


def code_costs(vae: CategoricalVAE, z_NLK: Tensor, x_BD: Tensor) -> Tensor:
    """Return −log p(x|z), shape (N, B), of every code for every image: each code is decoded once."""
    pixels_ND = vae.decode(z_NLK)
    without_x_N = bernoulli_nll(pixels_ND.unsqueeze(1), torch.zeros_like(x_BD[:1]))
    return without_x_N - pixels_ND @ x_BD.T


def neg_bound(vae: CategoricalVAE, law: Callable[[Tensor], Tensor], x_ND: Tensor, k: int) -> float:
    """Return the importance-weighted bound −E log (1/k) Σ p(x, z)/q(z|x) over k codes, in nats per image.

    `law` gives the logits of the one-hot codes from the output of the encoder. k = 1 is the negative ELBO with a
    sampled KL; the bound falls towards −log p(x) as k grows. Burda, Grosse and Salakhutdinov (2016),
    "Importance weighted autoencoders", arXiv:1509.00519, eq. (8).
    """
    total = 0.0
    for x_BD in torch.split(x_ND, max(1, MAX_DECODED // k)):
        logits_BLK = law(vae.encode(x_BD))
        chunks = [min(MAX_DECODED, k - done) for done in range(0, k, MAX_DECODED)]
        log_weights = torch.cat([log_weight(vae, x_BD, logits_BLK, n) for n in chunks])
        total -= (log_weights.cpu().double().logsumexp(0) - math.log(k)).sum().item()
    return total / len(x_ND)


def log_weight(vae: CategoricalVAE, x_BD: Tensor, logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return log p(x|z) + log p(z) − log q(z|x) of codes drawn from q, shape (S, B)."""
    z_SBLK = one_hot_samples(logits_BLK, n_samples)
    log_q_SB = (z_SBLK * (logits_BLK - logits_BLK.logsumexp(-1, keepdim=True))).sum((-2, -1))
    log_prior = -vae.n_latents * math.log(vae.n_categories)
    return -vae.reconstruction_cost(x_BD)(z_SBLK) + log_prior - log_q_SB


def traversals(logits_LK: Tensor, kl_L: Tensor) -> Tensor:
    """Return the most probable code, with one latent set to one class after the other: one-hot codes (R, C, L, K).

    A row for each of the MAX_ROWS latents with the largest KL, the largest first; a column for each class, at most the
    first MAX_COLUMNS.
    """
    n_categories = logits_LK.shape[-1]
    row_R = kl_L.sort(descending=True, stable=True).indices[:MAX_ROWS].tolist()
    n_columns = min(n_categories, MAX_COLUMNS)
    class_RCL = logits_LK.argmax(-1).repeat(len(row_R), n_columns, 1)
    for row, latent in enumerate(row_R):
        class_RCL[row, :, latent] = torch.arange(n_columns, device=class_RCL.device)
    return one_hot(class_RCL, n_categories).to(logits_LK.dtype)
