"""Images in memory: one float32 tensor a split, in [0, 1], split and binarised the same way for every run.

Letters: **N** images of a split, **B** images of a batch, **D** pixels (of all channels).

Binarisation
    none        gray values, as stored
    threshold   1 where gray > 0.5
    fixed       one Bernoulli draw a pixel with probability gray, the same for every run with this `split_seed`
    resampled   training images stay gray in memory and are drawn anew each time a batch is taken; validation and test
                images are the fixed draw, so that evaluations of one model agree
"""

import functools
import hashlib
from dataclasses import dataclass, replace
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.datasets import files
from harness.datasets.descriptions import MNIST_MINI_SHA256, DataError, DatasetInfo, Split, lookup
from harness.datasets.idx import check_sha256
from harness.datasets.own import OwnSettings, is_own, read_own
from harness.datasets.sizes import SizeSettings, sizes

Binarization = Literal["none", "threshold", "fixed", "resampled"]
Images = NDArray[np.uint8] | NDArray[np.float32]


class DataSettings(OwnSettings, SizeSettings, Protocol):
    """What `load` reads of a configuration; `harness.config.DataConfig` has it."""

    @property
    def binarization(self) -> Binarization: ...
    @property
    def split_seed(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of images and their labels.

    `image_shape` is (H, W) or (C, H, W). Own images may have no labels: the tensors of labels are empty then.
    """

    name: str
    image_shape: tuple[int, ...]
    binarization: Binarization
    train_ND: Tensor
    train_N: Tensor
    validation_ND: Tensor
    validation_N: Tensor
    test_ND: Tensor
    test_N: Tensor

    @property
    def n_pixels(self) -> int:
        """Values of one image."""
        return self.train_ND.shape[1]

    def with_labels(self, needed_by: str) -> "Dataset":
        """Return this data set. Raises DataError if its images have no labels."""
        if not len(self.train_N):
            raise DataError(
                f"{needed_by}: expected images with labels, got none in {self.name}. Add train_labels and test_labels."
            )
        return self

    def split(self, name: Literal["train", "validation", "test"]) -> Tensor:
        """Return the images of one split; training images as they are in memory, gray if they are resampled."""
        return {"train": self.train_ND, "validation": self.validation_ND, "test": self.test_ND}[name]

    def train_batch(self, index_B: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the training images at `index_B`, (B, D): one gather and, if resampled, one draw from `generator`.

        Index and generator live on the device of the data.
        """
        return binarize_batch(self.train_ND.index_select(0, index_B), self.binarization, generator)

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the same data on a device."""
        moved: dict[str, Any] = {name: one.to(device) for name, one in vars(self).items() if isinstance(one, Tensor)}
        return replace(self, **moved)


def binarize_batch(x_BD: Tensor, kind: Binarization, generator: torch.Generator | None = None) -> Tensor:
    """Return a batch as it is trained on: a Bernoulli draw if "resampled"; the rest was binarised by `load`."""
    return torch.bernoulli(x_BD, generator=generator) if kind == "resampled" else x_BD


def load(config: DataSettings, *, data_dir: Path | None = None) -> Dataset:
    """Return the data set that `config` names, split and binarised.

    The validation images are taken from the training images by a permutation seeded with `split_seed` alone. `fixed`
    draws belong to the stored image: another validation fraction or training size moves images, it does not redraw
    them. Raises DataError if the data set is unknown, missing or damaged, or too small for the split.
    """
    n_train, n_validation, _, image_shape = sizes(config)
    raw = _raw_own(config) if is_own(config.name) else _raw_built_in(config.name, data_dir)
    order = _random_state(config.split_seed, "split").permutation(len(raw.train))
    n_cut = 0 if raw.validation is not None else n_validation
    validation, train = order[:n_cut], order[n_cut : n_cut + n_train]
    of_train = _evaluation_images(raw.train, config, "train")
    for_training = raw.train if config.binarization == "resampled" else of_train
    of_validation, validation_labels = of_train[validation], _at(raw.train_labels, validation)
    if raw.validation is not None:
        of_validation = _evaluation_images(raw.validation, config, "validation")
        validation_labels = raw.validation_labels
    return Dataset(
        name=config.path or config.name,
        image_shape=image_shape,
        binarization=config.binarization,
        train_ND=_pixels(for_training[train]),
        train_N=_labels(_at(raw.train_labels, train)),
        validation_ND=_pixels(of_validation),
        validation_N=_labels(validation_labels),
        test_ND=_pixels(_evaluation_images(raw.test, config, "test")),
        test_N=_labels(raw.test_labels),
    )


load_cached = functools.lru_cache(maxsize=1)(load)
"""`load`, remembering the newest data set: most runs of a worker want the same one."""


class _Raw(NamedTuple):
    """Arrays as stored: images (N, D), bytes or floats in [0, 1], and labels from 0, which may be empty."""

    train: Images
    train_labels: NDArray[np.integer]
    test: Images
    test_labels: NDArray[np.integer]
    validation: Images | None = None  # if there are some of their own
    validation_labels: NDArray[np.integer] = np.empty(0, np.int64)


def _raw_own(config: OwnSettings) -> _Raw:
    """Return the arrays of own images, which are verified and cached by `read_own`."""
    own = read_own(config)
    none = np.empty(0, np.int64)
    return _Raw(
        train=_flat(own.train),
        train_labels=none if own.train_labels is None else own.train_labels,
        test=_flat(own.test),
        test_labels=none if own.test_labels is None else own.test_labels,
        validation=None if own.validation is None else _flat(own.validation),
        validation_labels=none if own.validation_labels is None else own.validation_labels,
    )


def _flat(images: Images) -> Images:
    return images.reshape(len(images), -1)


def _at(label_N: NDArray[np.integer], index: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the labels at an index; none if there are none."""
    return label_N[index] if len(label_N) else label_N


def _raw_built_in(name: str, data_dir: Path | None) -> _Raw:
    """Return the arrays of a built-in data set."""
    info = lookup(name)
    return _raw(info, None if info.embedded else (data_dir or files.default_data_dir()).absolute())


@functools.lru_cache(maxsize=2)
def _raw(info: DatasetInfo, data_dir: Path | None) -> _Raw:
    """Return the stored arrays. They are cached, so that a worker process reads and verifies a data set once."""
    if data_dir is None:
        return _embedded()
    if info.n_validation:
        return _binary(info, data_dir)
    splits: tuple[Split, Split] = ("train", "test")
    arrays: list[NDArray[np.integer]] = []
    for images, labels in map(info.split_files, splits):
        image_NHW = files.read(info, images, data_dir)
        oriented = image_NHW.transpose(0, 2, 1) if info.transposed else image_NHW
        arrays += [oriented.reshape(len(oriented), -1), files.read(info, labels, data_dir) - info.first_label]
    train, train_labels, test, test_labels = arrays
    return _Raw(train.astype(np.uint8, copy=False), train_labels, test.astype(np.uint8, copy=False), test_labels)


def _binary(info: DatasetInfo, data_dir: Path) -> _Raw:
    """Return a data set of binary images that has validation images of its own and no labels."""
    found = {}
    for split in ("train", "validation", "test"):
        (file,) = info.split_files(split)
        found[split] = files.read(info, file, data_dir).reshape(file.shape[0], -1).astype(np.uint8, copy=False)
    none = np.empty(0, np.int64)
    return _Raw(found["train"], none, found["test"], none, found["validation"])


def _embedded() -> _Raw:
    """Return mnist-mini, from this package."""
    content = (resources.files("harness.datasets") / "mnist_mini.npz").read_bytes()
    check_sha256(content, MNIST_MINI_SHA256, "mnist_mini.npz")
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        parts = [archive[f"{split}_{what}"] for split in ("train", "test") for what in ("images", "labels")]
    return _Raw(parts[0].reshape(len(parts[0]), -1), parts[1], parts[2].reshape(len(parts[2]), -1), parts[3])


def _evaluation_images(image_ND: Images, config: DataSettings, split: str) -> Images:
    """Return images as evaluation sees them: only 0 and the largest value (255 or 1) unless gray is asked for."""
    if config.binarization == "none":
        return image_ND
    if image_ND.dtype == np.float32:
        return _binary_floats(image_ND, config, split)
    if config.binarization == "threshold":
        return np.where(image_ND > 127, np.uint8(255), np.uint8(0))
    random = _random_state(config.split_seed, split)
    draw_ND = random.randint(0, 255, size=image_ND.shape, dtype=np.uint8)  # below gray with probability gray / 255
    return np.where(draw_ND < image_ND, np.uint8(255), np.uint8(0))


def _binary_floats(image_ND: Images, config: DataSettings, split: str) -> NDArray[np.float32]:
    """Return floats in [0, 1] as evaluation sees them if gray is not asked for: 0 and 1."""
    if config.binarization == "threshold":
        return (image_ND > 0.5).astype(np.float32)
    random = _random_state(config.split_seed, split)
    rows = (random.random_sample(image_D.shape) < image_D for image_D in image_ND)  # a row at a time: memory
    return np.stack([row.astype(np.float32) for row in rows])


def _random_state(seed: int, purpose: str) -> np.random.RandomState:
    """Return a random stream for one purpose. RandomState has the same streams in every version of numpy."""
    digest = hashlib.sha256(f"harness.data/{seed}/{purpose}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))


def _pixels(image_ND: Images) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(image_ND, dtype=np.float32))
    return pixels.div_(255) if image_ND.dtype == np.uint8 else pixels.clone()


def _labels(label_N: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(label_N.astype(np.int64))
