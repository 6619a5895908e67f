"""Pictures of a model: reconstructions of the first test images, samples of the prior, and traversals of latents.

Their noise is the same at every step, so that pictures of one run differ by the model alone.
"""

import io
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot, pad

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.load import Dataset
from harness.datasets.sizes import can_be_drawn
from harness.events import Picture
from harness.training import seeding
from harness.training.latents import LatentUse
from harness.training.state import State
from harness.training.vae import CategoricalVAE, one_hot_samples

PICTURE_NOISE = -4
"""The stream of evaluation noise for pictures; those of the final metrics are in `harness.training.evaluate`."""
MAX_ROWS, MAX_COLUMNS = 8, 16
"""The most latents, and classes of each, that a traversal shows."""
GAP = 2
"""Pixels between two images."""


def is_pictured(epoch: int, last: int) -> bool:
    """Return whether a run makes pictures after this epoch: 1, 2, 4, 8, … before the last, which has its own."""
    return epoch < last and epoch.bit_count() == 1


def training_pictures(run: RunConfig, state: State, dataset: Dataset) -> Iterator[Picture]:
    """Yield the pictures after an epoch, if it is one that has any."""
    if is_pictured(state.epoch, run.training.epochs):
        for name, png in present_pictures(run, state.vae, state.estimator, dataset):
            yield Picture(name, state.step, png, final=False)


@torch.no_grad()
def present_pictures(
    run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, PNG): reconstructions of the first test images from one-hot samples, and samples of the prior."""
    n = run.evaluation.n_images
    if n == 0 or not can_be_drawn(dataset.image_shape):
        return
    x_BD = dataset.test_ND[:n]
    with seeding.seeded(run.seed, "evaluation", PICTURE_NOISE, device=x_BD.device):
        codes = one_hot_samples(estimator.class_logits(vae.encode(x_BD)), 1)[0]
        prior = one_hot_samples(codes.new_zeros(n, vae.n_latents, vae.n_categories), 1)[0]
    yield "reconstructions", png_grid(torch.sigmoid(vae.decode(codes)).unsqueeze(0), dataset.image_shape)
    yield "prior_samples", png_grid(torch.sigmoid(vae.decode(prior)).unsqueeze(0), dataset.image_shape)


@torch.no_grad()
def final_pictures(
    run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset, use: LatentUse
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, PNG): the first test images, `present_pictures`, and traversals of the latents with the most KL."""
    if run.evaluation.n_images == 0 or not can_be_drawn(dataset.image_shape):
        return
    x_BD = dataset.test_ND[: run.evaluation.n_images]
    yield "originals", png_grid(x_BD.unsqueeze(0), dataset.image_shape)
    yield from present_pictures(run, vae, estimator, dataset)
    logits_LK = estimator.class_logits(vae.encode(x_BD[:1]))[0]
    codes_RCLK = traversals(logits_LK, use.kl_L)
    yield "traversals", png_grid(torch.sigmoid(vae.decode(codes_RCLK)), dataset.image_shape)


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


def png_grid(x_RCD: Tensor, image_shape: tuple[int, ...]) -> bytes:
    """Return R rows of C images, values in [0, 1], as one PNG, GAP pixels apart.

    It is greyscale for images (H, W), and RGB for (3, H, W).
    """
    height, width = image_shape[-2:]
    n_rows, n_columns, _ = x_RCD.shape
    images = x_RCD.float().cpu().reshape(n_rows, n_columns, -1, height, width)
    tiles = pad(images, (0, GAP, 0, GAP)).permute(0, 3, 1, 4, 2)  # rows, H, columns, W, channels
    sheet = tiles.reshape(n_rows * (height + GAP), n_columns * (width + GAP), -1)[:-GAP, :-GAP].squeeze(-1)
    out = io.BytesIO()
    Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()).save(out, format="PNG", optimize=True)
    return out.getvalue()
