"""Backbones of the categorical VAE: pairs of an encoder and the decoder that mirrors it.

An encoder maps images (B, D) to numbers (B, L·H), latent by latent; a decoder maps codes (…, L·K) to pixel logits
(…, D). Letters: B examples, L latents, K classes, H outputs for a latent, D pixels; N codes, C channels.

    mlp     D → hidden → L·H                   latents see the whole image
    linear  D → L·H                            as mlp without hidden layers
    conv    C images → channels → H channels   a latent for each place of a grid: the convolutions halve height and
                                               width, but for the last, which is 1×1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, final

from torch import Tensor, nn

from harness.tasks.linear import LinearLayer, Precision

Backbone = Literal["mlp", "linear", "conv"]
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


def mlp(sizes: Sequence[int], activation: str, last_activation: str, precision: Precision) -> nn.Sequential:
    """Return layers of these sizes, from the input to the output."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        name = activation if i < len(sizes) - 2 else last_activation
        layers.append(LinearLayer(n_in, n_out, relu=name == "relu", precision=precision))
        if name in _ACTIVATIONS:
            layers.append(_ACTIVATIONS[name]())
    return nn.Sequential(*layers)


@final
class ConvEncoder(nn.Module):
    """Strided convolutions, 4×4, and one of 1×1 to the H numbers of each place: (B, D) → (B, L·H)."""

    def __init__(
        self,
        image_shape: tuple[int, ...],
        channels: Sequence[int],
        n_outputs: int,
        activation: str = "relu",
        last_activation: str = "identity",
    ) -> None:
        super().__init__()
        self.image_shape = _with_channels(image_shape)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([self.image_shape[0], *channels]):
            layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), *_activated(activation)]
        layers += [nn.Conv2d(channels[-1], n_outputs, 1), *_activated(last_activation)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return the numbers (B, L·H), place by place."""
        grid_BHYX: Tensor = self.layers(x_BD.view(-1, *self.image_shape))
        return grid_BHYX.flatten(2).transpose(1, 2).flatten(1)


@final
class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`, with transposed convolutions: codes (…, L·K) → pixel logits (…, D)."""

    def __init__(
        self, image_shape: tuple[int, ...], channels: Sequence[int], n_categories: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        n_channels, height, width = _with_channels(image_shape)
        shrunk = 2 ** len(channels)
        self.grid = (n_categories, height // shrunk, width // shrunk)
        layers: list[nn.Module] = [nn.Conv2d(n_categories, channels[-1], 1)]
        for n_in, n_out in pairwise([*reversed(channels), n_channels]):
            layers += [*_activated(activation), nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, code_xC: Tensor) -> Tensor:
        """Return the pixel logits."""
        n_categories, height, width = self.grid
        places_NYXK = code_xC.reshape(-1, height, width, n_categories)
        image_NCYX: Tensor = self.layers(places_NYXK.permute(0, 3, 1, 2))
        return image_NCYX.reshape(*code_xC.shape[:-1], -1)


def encoder_and_decoder(
    backbone: Backbone,
    *,
    image_shape: tuple[int, ...],
    n_latents: int,
    n_categories: int,
    n_outputs: int,
    hidden: Sequence[int],
    channels: Sequence[int],
    activation: str,
    logits_activation: str,
    precision: Precision,
) -> tuple[nn.Module, nn.Module]:
    """Return the encoder and the decoder of a backbone.

    `hidden` are the widths of `mlp`, `channels` those of `conv`, whose latents are the places of its grid.
    """
    if backbone == "conv":
        encoder = ConvEncoder(image_shape, channels, n_outputs, activation, logits_activation)
        return encoder, ConvDecoder(image_shape, channels, n_categories, activation)
    widths = hidden if backbone == "mlp" else ()
    n_pixels = math.prod(image_shape)
    sizes, code = [n_pixels, *widths, n_latents * n_outputs], n_latents * n_categories
    return (
        mlp(sizes, activation, logits_activation, precision),
        mlp([code, *reversed(widths), n_pixels], activation, "identity", precision),
    )


def _with_channels(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    return image_shape if len(image_shape) == 3 else (1, *image_shape)


def _activated(name: str) -> list[nn.Module]:
    if name == "relu":
        return [nn.ReLU()]
    return [_ACTIVATIONS[name]()] if name in _ACTIVATIONS else []
