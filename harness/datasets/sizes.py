"""How many images each split of a data set has, and their shape, without reading any."""

import math
from typing import NamedTuple, Protocol

from harness.datasets.descriptions import DatasetInfo, lookup, split_sizes


class SizeSettings(Protocol):
    """What `sizes` reads of a configuration; `harness.config.DataConfig` has it."""

    @property
    def name(self) -> str: ...
    @property
    def validation_fraction(self) -> float: ...
    @property
    def train_size(self) -> int | None: ...


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


def sizes(config: SizeSettings) -> Sizes:
    """Return the sizes of the data that `config` describes.

    Raises DataError if the data set is unknown or too small for the split.
    """
    return _of_built_in(lookup(config.name), config)


def _of_built_in(info: DatasetInfo, config: SizeSettings) -> Sizes:
    n_validation, n_train = split_sizes(info, config.validation_fraction, config.train_size)
    return Sizes(n_train, n_validation, info.n_test, info.image_shape)
