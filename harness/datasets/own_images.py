"""Images of one's own: the arrays of a file, a folder or a plug-in, checked and brought into one form.

Their form is that of the file: arrays `train`, `test` and, if wanted, `validation`, each with labels such as
`train_labels` or none. Letters: **N** images, **D** pixels, **C** channels, **H** rows, **W** columns.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.datasets.descriptions import DataError
from harness.errors import did_you_mean

SPLITS = ("train", "validation", "test")
LABELS = {split: f"{split}_labels" for split in SPLITS}
ARRAYS = (*SPLITS, *LABELS.values())
CHANNELS = (1, 3)
"""The numbers of channels of greyscale and RGB, which may come last."""

Images = NDArray[np.uint8] | NDArray[np.float32]


class OwnImages(NamedTuple):
    """The images of each split, (N, H, W) or (N, C, H, W), bytes or floats in [0, 1], and their labels (N,), if any."""

    train: Images
    test: Images
    validation: Images | None
    train_labels: NDArray[np.int64] | None
    test_labels: NDArray[np.int64] | None
    validation_labels: NDArray[np.int64] | None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W) or (C, H, W)."""
        return tuple(self.train.shape[1:])

    @property
    def n_images(self) -> tuple[int, int, int]:
        """The numbers of training, validation and test images."""
        return len(self.train), 0 if self.validation is None else len(self.validation), len(self.test)

    @property
    def digest(self) -> str:
        """The SHA-256 of each array that is there, sorted by name: a line `name type shape`, then its bytes."""
        sha = hashlib.sha256()
        for name, array in sorted(self._asdict().items()):
            if array is not None:
                sha.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
                sha.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
        return sha.hexdigest()


def check_names(names: list[str], label: str) -> None:
    """Raise DataError unless these are the names of arrays of own images."""
    for name in names:
        if name not in ARRAYS:
            hint = did_you_mean(name, ARRAYS)
            raise DataError(f"{label}: expected arrays among {', '.join(ARRAYS)}, got '{name}'. {hint}".rstrip())
    for name in ("train", "test"):
        if name not in names:
            raise DataError(f"{label}: {name}: expected an array, got none. Found: {', '.join(names) or 'nothing'}.")
    for split in SPLITS:
        if LABELS[split] in names and split not in names:
            raise DataError(f"{label}: {LABELS[split]}: expected images {split} with them, got none.")
    given = [split for split in SPLITS if split in names]
    labelled = [split for split in given if LABELS[split] in names]
    if labelled and labelled != given:
        missing = LABELS[next(split for split in given if split not in labelled)]
        raise DataError(f"{label}: {missing}: expected labels of all splits or of none, got none of this one.")


def checked(arrays: Mapping[str, NDArray[np.generic]], label: str) -> OwnImages:
    """Return arrays, by name, as own images. Raises DataError, which begins with `label`, for anything else."""
    check_names(list(arrays), label)
    given = [split for split in SPLITS if split in arrays]
    for split in given:
        check_form(arrays[split].shape, arrays[split].dtype, f"{label}: {split}")
        for what, found, first in (
            ("images of the shape of train", arrays[split].shape[1:], arrays["train"].shape[1:]),
            ("the type of train", arrays[split].dtype, arrays["train"].dtype),
        ):
            if found != first:
                raise DataError(f"{label}: {split}: expected {what}, {first}, got {found}.")
    shape = image_shape(arrays["train"].shape)
    images = {split: _oriented(_values(arrays[split], f"{label}: {split}"), shape) for split in given}
    labels = {
        name: _labels(arrays[name], len(arrays[split]), f"{label}: {name}")
        for split, name in LABELS.items()
        if name in arrays
    }
    return OwnImages(**dict.fromkeys(ARRAYS) | images | labels)  # type: ignore[arg-type]


def check_form(shape: tuple[int, ...], dtype: np.dtype[np.generic], label: str) -> None:
    """Raise DataError unless an array of images can have that shape and type."""
    if len(shape) not in (2, 3, 4):
        raise DataError(f"{label}: expected images (N, D), (N, H, W) or (N, C, H, W), got shape {shape}.")
    if not all(shape):
        raise DataError(f"{label}: expected at least one image of at least one pixel, got shape {shape}.")
    if dtype.kind == "O":
        raise DataError(f"{label}: expected numbers, got Python objects, which are not read. Save an array of numbers.")
    if dtype != np.uint8 and dtype.kind not in "fb":
        raise DataError(
            f"{label}: expected floats in [0, 1], bytes or booleans, got {dtype}. "
            "Save bytes (0 to 255) as array.astype(numpy.uint8)."
        )


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an image in an array of that shape: (H, W), or (C, H, W) with more than one channel.

    Pixels in a row (N, D) are a square if D is a square number, else one row. Channels come last if there are 1 or 3 of
    them there, and not 1 or 3 where they come first.
    """
    if len(shape) == 2:
        side = math.isqrt(shape[1])
        return (side, side) if side * side == shape[1] else (1, shape[1])
    if len(shape) == 3:
        return shape[1:]
    channels, height, width = (shape[3], *shape[1:3]) if _channels_last(shape) else shape[1:]
    return (height, width) if channels == 1 else (channels, height, width)


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS


def _oriented(images: Images, shape: tuple[int, ...]) -> Images:
    """Return images with channels first, without a dimension for a single one."""
    if _channels_last(images.shape):
        images = images.transpose(0, 3, 1, 2)
    return images.reshape(len(images), *shape)


def _values(images: NDArray[Any], label: str) -> Images:
    """Return bytes as they are, booleans as bytes 0 and 255, and floats as float32."""
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype == np.uint8:
        if images.max() == 1:
            raise DataError(
                f"{label}: expected bytes from 0 to 255, got 0 and 1 alone, which would be next to black. "
                "Save images of two values as array.astype(bool)."
            )
        return images
    low, high = float(images.min()), float(images.max())
    if math.isnan(low) or math.isnan(high):
        raise DataError(f"{label}: expected floats in [0, 1], got NaN.")
    if low < 0 or high > 1:
        hint = " Divide them by 255, or save bytes." if low >= 0 and high <= 255 else ""
        raise DataError(f"{label}: expected floats in [0, 1], got {low:g} to {high:g}.{hint}")
    floats: NDArray[np.float32] = images.astype(np.float32, copy=False)
    return floats


def _labels(labels: NDArray[np.generic], n_images: int, label: str) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu":
        raise DataError(f"{label}: expected whole numbers from 0, got {labels.dtype}.")
    if labels.shape != (n_images,):
        raise DataError(f"{label}: expected a label for each of the {n_images:,} images, got shape {labels.shape}.")
    if labels.min() < 0 or labels.max() >= 2**31:
        raise DataError(f"{label}: expected whole numbers from 0, got {labels.min()} to {labels.max()}.")
    return labels.astype(np.int64)


def check_memory(n_values: int, bytes_per_value: int, label: str) -> None:
    """Raise DataError unless so many pixel values fit into free memory, as they are and as float32."""
    import psutil

    needed, free = n_values * (bytes_per_value + 4), psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{label}: expected images that fit into memory, {free / 1e9:,.1f} GB of which are free, got about "
            f"{needed / 1e9:,.1f} GB. Use fewer or smaller images."
        )
