"""Pictures of a model, such as reconstructions of the first test images, as PNG files.

Their noise is the same at every step, so that pictures of one run differ by the model alone.
"""

import io
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from harness.config import RunConfig
from harness.datasets.sizes import can_be_drawn
from harness.events import Picture
from harness.tasks.draws import CodeDraws
from harness.tasks.latents import LatentUse
from harness.tasks.splits import take
from harness.training import seeding
from harness.training.state import State

PICTURE_NOISE = -4
"""The stream of evaluation noise for pictures; those of the final metrics are in `harness.training.evaluate`."""
GAP = 2
"""Pixels between two images."""


def is_pictured(epoch: int, last: int) -> bool:
    """Return whether a run makes pictures after this epoch: 1, 2, 4, 8, … before the last, which has its own."""
    return epoch < last and epoch.bit_count() == 1


def training_pictures(run: RunConfig, state: State) -> Iterator[Picture]:
    """Yield the pictures after an epoch, if it is one that has any."""
    if is_pictured(state.epoch, run.training.epochs):
        yield from _pictures(run, state, None, final=False)


def final_pictures(run: RunConfig, state: State, use: LatentUse | None) -> Iterator[Picture]:
    """Yield the pictures at the end of a run."""
    yield from _pictures(run, state, use, final=True)


@torch.no_grad()
def _pictures(run: RunConfig, state: State, use: LatentUse | None, *, final: bool) -> Iterator[Picture]:
    """Yield the pictures that the task makes of the first test examples.

    There are none without `evaluation.n_images`, and none of a trial.
    """
    n = run.evaluation.n_images if run.trial is None else 0
    shape = state.splits.image_shape
    if n == 0 or "n_images" not in state.task.evaluation_settings or not can_be_drawn(shape):
        return
    state.task.eval()
    test, device = take(state.splits.test, n), torch.device(run.device)
    with seeding.seeded(run.seed, "evaluation", PICTURE_NOISE, device=device):
        found = list(state.task.pictures(test, CodeDraws(state.estimators), use))
    for name, images in found:
        yield Picture(name, state.step, png_grid(images, shape), final=final)


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
