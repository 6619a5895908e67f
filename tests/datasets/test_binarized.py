"""The binarised MNIST of Salakhutdinov and Murray: text files of the user, with splits of their own and no labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_datasets import get, install_catalogue, put, small_binary

from harness.config import DataConfig
from harness.datasets import load as data_module
from harness.datasets.amat import parse_amat
from harness.datasets.descriptions import DATASETS, DataError
from harness.datasets.load import load
from harness.datasets.sizes import sizes

NAME = "mnist-binarized"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    info, plain = small_binary()
    install_catalogue(monkeypatch, info)
    for module in ("sizes", "own"):
        monkeypatch.setattr(f"harness.datasets.{module}.DATASETS", {**DATASETS, NAME: info})
    return plain


def pixels(content: bytes) -> torch.Tensor:
    return torch.tensor([[float(digit) for digit in line.split()] for line in content.decode().splitlines()])


@pytest.mark.parametrize("packed", [False, True])
def test_the_three_splits_are_those_of_the_files(tmp_path: Path, files: dict[str, bytes], packed: bool) -> None:
    put(tmp_path / "data" / NAME, files, packed=packed)
    data = load(DataConfig(name=NAME), data_dir=tmp_path / "data")
    train, validation, test = map(pixels, files.values())
    assert torch.equal(data.validation_ND, validation)
    assert torch.equal(data.test_ND, test)
    assert sorted(map(tuple, data.train_ND.tolist())) == sorted(map(tuple, train.tolist()))
    assert data.train_ND.unique().tolist() == [0.0, 1.0]
    assert len(data.train_N) == 0
    found = sizes(DataConfig(name=NAME, train_size=30))
    assert (found.n_train, found.n_validation, found.n_test, found.image_shape) == (30, 10, 10, (28, 28))


def test_files_of_the_user_are_fetched_and_nothing_is_downloaded(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder, said = get(NAME, tmp_path, put(tmp_path / "mine", files))
    assert said[-1] == f"{NAME}: 3 verified files stored in {folder}."
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert get(NAME, tmp_path)[1] == [f"{NAME}: complete in {folder}, nothing to do."]


def test_without_the_files_one_line_says_what_to_get_and_where_to_put_it(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    where = (
        f"harness data fetch {NAME} --data-dir DIR, where DIR has binarized_mnist_train.amat, "
        "binarized_mnist_valid.amat and binarized_mnist_test.amat of "
        "www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    )
    folder = tmp_path / "data"
    with pytest.raises(DataError) as caught:
        load(DataConfig(name=NAME), data_dir=folder)
    assert str(caught.value) == f"{NAME}: expected files in {folder / NAME}, found none. Get it with: {where}"
    with pytest.raises(DataError) as caught:
        get(NAME, tmp_path)
    assert str(caught.value) == (
        f"{NAME}: expected files of yours, since nothing downloads them, got: files in {folder} (no "
        f"binarized_mnist_train.amat or binarized_mnist_train.amat.gz). Get them with: {where}"
    )


def test_a_file_with_another_content_is_not_used(tmp_path: Path, files: dict[str, bytes]) -> None:
    name = "binarized_mnist_valid.amat"
    put(tmp_path / "data" / NAME, files | {name: files[name].replace(b"1", b"0", 1)})
    data_module._raw.cache_clear()
    with pytest.raises(DataError, match=rf"{name}: expected sha256 [0-9a-f]{{64}}, got .* Get it again with: harness"):
        load(DataConfig(name=NAME), data_dir=tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 1\n1 0\n1 1", "expected 3 lines of 2 pixels, 12 bytes, got 11 bytes"),
        (b"0 1\n1 2\n1 1\n", ":2: expected 2 pixels, 0 or 1, with a space between them, got another line"),
        (b"0 1\n1 0\n1,1\n", ":3: expected 2 pixels"),
        (b"0 1 1 0\n1 1\n", ":1: expected 2 pixels"),
    ],
)
def test_a_text_of_another_form_is_refused_with_its_line(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_amat(content, (3, 1, 2), "x.amat")


def test_a_text_becomes_bytes_of_black_and_white() -> None:
    assert np.array_equal(parse_amat(b"0 1\n1 0\n", (2, 1, 2), "x"), [[[0, 255]], [[255, 0]]])


def test_its_splits_and_its_binarisation_cannot_be_set() -> None:
    data = DataConfig(name=NAME)
    assert (data.validation_fraction, data.binarization) == (0.0, "none")
    assert '"validation_fraction":0.0' in data.canonical
    assert DataConfig.model_validate_json(data.model_dump_json()) == data
    with pytest.raises(
        ValidationError, match="binarization: expected none with data mnist-binarized, whose images are"
    ):
        DataConfig(name=NAME, binarization="fixed")
    with pytest.raises(
        ValidationError, match="validation_fraction: expected none with data mnist-binarized, which has"
    ):
        DataConfig(name=NAME, validation_fraction=0.1)
