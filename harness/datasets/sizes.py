"""How many images each split of a data set has, and their shape, without reading any."""

import math
from typing import NamedTuple, Protocol

from harness.datasets.descriptions import DATASETS, lookup, split_sizes
from harness.datasets.image_source import OWN
from harness.datasets.own import unknown_name, unread


class SizeSettings(Protocol):
    """What `sizes` reads of a configuration; `harness.config.DataConfig` has it."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def validation_fraction(self) -> float: ...
    @property
    def train_size(self) -> int | None: ...
    @property
    def n_images(self) -> tuple[int, int, int] | None: ...
    @property
    def image_shape(self) -> tuple[int, ...] | None: ...


class Sizes(NamedTuple):
    """The images of each split that a run uses, and the shape of an image: (H, W) or (C, H, W)."""

    n_train: int
    n_validation: int
    n_test: int
    image_shape: tuple[int, ...]

    @property
    def n_pixels(self) -> int:
        """Values of one image."""
        return math.prod(self.image_shape)


def can_be_drawn(image_shape: tuple[int, ...]) -> bool:
    """Return whether images of that shape are greyscale or RGB."""
    return len(image_shape) == 2 or image_shape[0] in (1, 3)


def sizes(config: SizeSettings) -> Sizes:
    """Return the sizes of the data that `config` describes.

    Raises DataError if the data set is unknown or too small for the split, or if own images were not read before.
    """
    if config.name in DATASETS:
        info = lookup(config.name)
        n_validation, n_train = split_sizes(info.name, info.n_train, config.validation_fraction, config.train_size)
        return Sizes(n_train, n_validation or info.n_validation, info.n_test, info.image_shape)
    if config.n_images is None or config.image_shape is None:
        raise unread(config.name) if config.name in OWN else unknown_name(config.name)
    of_train, own_validation, n_test = config.n_images
    cut, n_train = split_sizes(config.path or config.name, of_train, config.validation_fraction, config.train_size)
    return Sizes(n_train, cut or own_validation, n_test, config.image_shape)
