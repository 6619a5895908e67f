"""Sizes of a data set are known without reading it, and they are those of the loaded one."""

import pytest
from small_datasets import Settings

from harness.datasets.descriptions import DataError
from harness.datasets.load import load
from harness.datasets.sizes import Sizes, sizes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings("mnist"), Sizes(54_000, 6_000, 10_000, (28, 28))),
        (Settings("omniglot", validation_fraction=0.0), Sizes(19_280, 0, 13_180, (28, 28))),
        (Settings("mnist-mini", train_size=7), Sizes(7, 400, 1_000, (28, 28))),
    ],
)
def test_sizes_of_a_built_in_data_set_need_no_file(settings: Settings, expected: Sizes) -> None:
    assert sizes(settings) == expected
    assert sizes(settings).n_pixels == 784


def test_sizes_are_those_of_the_loaded_data() -> None:
    settings = Settings("mnist-mini", validation_fraction=0.2, train_size=100)
    data, found = load(settings), sizes(settings)
    assert (len(data.train_ND), len(data.validation_ND), len(data.test_ND)) == found[:3]
    assert (data.image_shape, data.n_pixels) == (found.image_shape, found.n_pixels)


def test_sizes_of_an_unknown_data_set_are_refused() -> None:
    with pytest.raises(DataError, match=r"^data.name: expected one of mnist-mini, .*, got 'mnit'. Did you mean"):
        sizes(Settings("mnit"))
