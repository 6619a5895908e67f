"""The data of a run as MLflow's data sets: one for training and one for testing, with a digest and a source.

The digest says which data a run sees, and anybody can compute it from the configuration without reading an image:

    digest = SHA-256 of the JSON, keys sorted, no spaces, of {"files": …, "name": …, "settings": …, "split": …}

`files` are the SHA-256 that the catalogue states for the stored files of the split, or for the archives that they are
made from; of own images, the digest that `harness.datasets.own_images` makes of the arrays. `settings` is what
`harness.datasets` does to them. Equal digests mean equal images in the same order.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import Dataset, DatasetInput, InputTag

from harness.config import DataConfig
from harness.datasets.descriptions import MNIST_MINI_SHA256, Split, lookup
from harness.datasets.own import is_own
from harness.datasets.sizes import sizes
from reports.contract.stored_run import DATA_DIGEST, DATA_HOW, DATA_NAME, TAG_DATA_CONTEXT

SHOWN_DIGITS = 8
"""Digits of a digest next to the name of a data set, as in MLflow's own digests. The source has all of them."""


class DatasetPart(NamedTuple):
    """The images of one purpose; `context` is MLflow's word for the purpose."""

    context: str
    digest: str
    n_images: int
    n_pixels: int
    settings: dict[str, Any]
    how: str


def dataset_inputs(data: DataConfig) -> list[DatasetInput]:
    """Return what a run trains on and what it is tested on."""
    return [_input(data, part) for part in dataset_parts(data)]


def _input(data: DataConfig, part: DatasetPart) -> DatasetInput:
    settings = {name: value for name, value in part.settings.items() if value is not None}
    facts = {DATA_NAME: data.name, DATA_DIGEST: part.digest, DATA_HOW: part.how}
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, part.n_pixels]}}]
    schema = {"mlflow_tensorspec": {"features": json.dumps(tensor), "targets": None}}
    dataset = Dataset(
        name=Path(data.path).name if data.path else data.name,
        digest=part.digest[:SHOWN_DIGITS],
        source_type="code",
        source=json.dumps({"tags": facts}),
        schema=json.dumps(schema),
        profile=json.dumps({"num_rows": part.n_images, "num_elements": part.n_images * part.n_pixels, **settings}),
    )
    return DatasetInput(dataset, [InputTag(TAG_DATA_CONTEXT, part.context)])


def dataset_parts(data: DataConfig) -> list[DatasetPart]:
    """Return what a run trains on (the validation images are cut from it) and what it is tested on."""
    settings = data.model_dump(exclude={"name", *data.own, *data.derived})
    testing = {name: settings[name] for name in ("binarization", "split_seed")}
    if data.binarization == "resampled":
        testing["binarization"] = "fixed"
    if testing["binarization"] != "fixed":  # the others draw nothing
        del testing["split_seed"]
    return [_part(data, "train", "training", settings), _part(data, "test", "test", testing)]


def _part(data: DataConfig, split: Split, context: str, settings: dict[str, Any]) -> DatasetPart:
    stated = {"files": _checksums(data, split), "name": data.name, "settings": settings, "split": split}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    found = sizes(data)
    n_images = found.n_train if split == "train" else found.n_test
    return DatasetPart(context, digest, n_images, found.n_pixels, settings, _how(data))


def _how(data: DataConfig) -> str:
    """Return where the images come from."""
    if not is_own(data.name):
        return lookup(data.name).how
    return f"{data.name} {data.location}" if data.location else f"plug-in with the data set {data.name}"


def _checksums(data: DataConfig, split: Split) -> list[str]:
    """Return the checksums of images and labels of a split, of the archives that they come from, or of own images."""
    if data.digest is not None:
        return [data.digest]
    info = lookup(data.name)
    if info.embedded:
        return [MNIST_MINI_SHA256]
    stated = [file.sha256 or file.sha256_gz for file in info.split_files(split)]
    return [sha for sha in stated if sha] or [archive.sha256 for archive in info.archives]
