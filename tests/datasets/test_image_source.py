"""Images of one's own from a plug-in: tensors, arrays and Datasets, read once into memory."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from own_images import COLOUR, arrays, images
from torch.utils.data import IterableDataset, TensorDataset

from harness.config import DataConfig
from harness.datasets.descriptions import DataError
from harness.datasets.image_source import ImageSource, read_source
from harness.datasets.load import load
from harness.datasets.own_images import checked


def source(splits: Any) -> type[ImageSource]:
    """A plug-in that returns what `splits` is, or makes."""

    class Mine(ImageSource):
        name = "my_data"

        def splits(self) -> Mapping[str, Any]:
            return splits() if callable(splits) else splits

    return Mine


def refusal(splits: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_source(source(splits))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", [torch.from_numpy, np.asarray], ids=["tensors", "arrays"])
def test_tensors_and_arrays_are_what_a_file_would_hold(make: Any) -> None:
    given = arrays(shape=COLOUR, train_labels=np.arange(20), test_labels=np.arange(8))
    found = read_source(source({name: make(array) for name, array in given.items()}))
    assert found.digest == checked(given, "x").digest


def test_the_items_of_a_dataset_are_images_with_labels_or_alone() -> None:
    given = arrays(train_labels=np.arange(20), test_labels=np.arange(8))
    pairs = {
        split: TensorDataset(torch.from_numpy(given[split]), torch.from_numpy(given[f"{split}_labels"]))
        for split in ("train", "test")
    }
    assert read_source(source(pairs)).digest == checked(given, "x").digest
    alone = {split: list(given[split]) for split in ("train", "test")}
    assert read_source(source(alone)).digest == checked(arrays(), "x").digest


def test_a_run_loads_its_plug_in() -> None:
    sources = {"my_data": source(arrays())}
    config = DataConfig(name="my_data").identified(sources)
    assert (config.n_images, config.image_shape, config.path, config.location) == ((20, 0, 8), (4, 6), None, None)
    data = load(config.with_source(sources))
    assert torch.equal(data.test_ND, torch.from_numpy(arrays()["test"].reshape(8, -1) / np.float32(255)))
    with pytest.raises(
        DataError, match=r"^my_data: expected the plug-in with this data set, got none. Give it with --"
    ):
        load(config)
    assert DataConfig.model_validate_json(config.with_source(sources).model_dump_json()) == config


def test_drawn_images_are_the_same_at_every_call_and_leave_the_generator_alone() -> None:
    drawn = source(lambda: {"train": torch.rand(5, 4, 4), "test": torch.rand(5, 4, 4)})
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = read_source(drawn).digest
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert read_source(drawn).digest == first


def test_images_that_differ_at_every_call_are_refused() -> None:
    seeds = iter(range(99))
    sources = {"my_data": source(lambda: arrays(train=images(20, seed=next(seeds))))}
    config = DataConfig(name="my_data").identified(sources)
    with pytest.raises(DataError, match=r"splits\(\) must return the same images at every call: seed it.$"):
        load(config.with_source(sources))


class Endless(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        yield torch.zeros(4, 6)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (5, "my_data: expected splits() to return a dict with train and test, got int."),
        ({"train": images(3)}, "my_data: test: expected an array, got none. Found: train."),
        (
            {"train": Endless(), "test": images(3)},
            "my_data: train: expected a tensor, an array or a Dataset with a length, got Endless.",
        ),
        ({"train": [], "test": images(3)}, "my_data: train: expected at least one image, got an empty Dataset."),
        (
            {"train": [images(1)[0], images(1, (6, 4))[0]], "test": images(3)},
            "my_data: train: item 1: expected an image of the form of the first, (4, 6) uint8, got (6, 4) uint8.",
        ),
        (
            {"train": images(3), "test": torch.rand(3, 4, 6) * 2},
            "my_data: test: expected the type of train, uint8, got float32.",
        ),
        (
            {"train": ["a", "b"], "test": ["a"]},
            "my_data: train: expected images (N, D), (N, H, W) or (N, C, H, W), got shape (2,).",
        ),
    ],
    ids=lambda value: value[9:40] if isinstance(value, str) else None,
)
def test_other_images_are_refused(splits: Any, message: str) -> None:
    assert refusal(splits) == message


def test_an_error_of_a_plug_in_names_its_line() -> None:
    def broken() -> None:
        raise FileNotFoundError("no such\nfile")

    assert refusal(broken).startswith(
        "my_data: expected splits() to return images, got FileNotFoundError: no such file (test_image_source.py:"
    )


def test_a_dataset_larger_than_memory_is_refused_after_its_first_item(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large:
        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: int) -> torch.Tensor:
            assert index == 0
            return torch.zeros(3, 100, 100)

    message = refusal({"train": Large(), "test": torch.zeros(3, 3, 100, 100)})
    assert message.startswith("my_data: train: expected images that fit into memory, ")
    assert message.endswith("got about 240,000.0 GB. Use fewer or smaller images.")


@pytest.mark.parametrize("name", ["Mine", "my data", "file", "mnist", "", None])
def test_a_name_that_a_grid_could_not_use_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name"):
        type("Bad", (ImageSource,), {"name": name, "splits": lambda self: {}})
