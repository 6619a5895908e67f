"""Which data a run sees, as a digest that anybody can compute from its configuration: no image is read for it.

    digest = SHA-256 of the JSON, keys sorted, no spaces, of {"files": …, "name": …, "settings": …, "split": …}

`files` are the SHA-256 that the catalogue states of the stored files of the split, or of the archives that they are
made from; `settings` what `harness.data` does to them. Equal digests mean equal images in the same order.
"""

import hashlib
import json
import math
from typing import Any, NamedTuple

from harness.config import DataConfig
from harness.datasets.descriptions import MNIST_MINI_SHA256, DatasetInfo, Split, lookup


class Part(NamedTuple):
    """The images of one purpose: `context` is what MLflow calls that."""

    context: str
    digest: str
    n_images: int
    n_pixels: int
    settings: dict[str, Any]
    how: str


def parts(data: DataConfig) -> list[Part]:
    """Return what a run trains on (the validation images are cut from it) and what it is tested on."""
    info = lookup(data.name)
    settings = data.model_dump(exclude={"name"})
    n_left = info.n_train - round(data.validation_fraction * info.n_train)
    testing = {name: settings[name] for name in ("binarization", "split_seed")}
    if data.binarization == "resampled":
        testing["binarization"] = "fixed"
    if testing["binarization"] != "fixed":  # no other draws anything
        del testing["split_seed"]
    return [
        _part(info, "train", "training", data.train_size or n_left, settings),
        _part(info, "test", "test", info.n_test, testing),
    ]


def _part(info: DatasetInfo, split: Split, context: str, n_images: int, settings: dict[str, Any]) -> Part:
    stated = {"files": checksums(info, split), "name": info.name, "settings": settings, "split": split}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return Part(context, digest, n_images, math.prod(info.image_shape), settings, info.how)


def checksums(info: DatasetInfo, split: Split) -> list[str]:
    """Return what the catalogue states of the files of a split: of images and labels, or of what they come from."""
    if info.embedded:
        return [MNIST_MINI_SHA256]
    stated = [file.sha256 or file.sha256_gz for file in info.split_files(split)]
    return [sha for sha in stated if sha] or [archive.sha256 for archive in info.archives]
