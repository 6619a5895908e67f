"""Images of one's own in a file: every allowed form gives the same tensors, and any other is one clear line."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_images import COLOUR, GREY, arrays, images, write_file

from harness.config import DataConfig
from harness.datasets import own_images
from harness.datasets.descriptions import DataError
from harness.datasets.load import Dataset, load
from harness.datasets.own_images import checked, image_shape
from harness.datasets.sizes import sizes


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a file of arrays and load it, as a grid in this folder does."""
    monkeypatch.chdir(tmp_path)

    def loaded(given: dict[str, Any], **settings: Any) -> Dataset:
        np.savez("own.npz", **given)
        return load(DataConfig(name="file", path="own.npz", **settings).identified())

    return loaded


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "of_one"),
    [
        ((9, 16), (4, 4)),
        ((9, 15), (1, 15)),
        ((9, 4, 6), (4, 6)),
        ((9, 1, 4, 6), (4, 6)),
        ((9, 4, 6, 1), (4, 6)),
        ((9, 3, 4, 6), (3, 4, 6)),
        ((9, 4, 6, 3), (3, 4, 6)),
        ((9, 3, 4, 3), (3, 4, 3)),  # either order fits: channels come first
        ((9, 5, 4, 6), (5, 4, 6)),
    ],
)
def test_the_shape_of_an_image_follows_from_that_of_the_array(shape: tuple[int, ...], of_one: tuple[int, ...]) -> None:
    assert image_shape(shape) == of_one


def test_bytes_floats_and_booleans_of_the_same_images_are_the_same_tensors(loaded: Any) -> None:
    grey = arrays()
    of_bytes = loaded(grey, validation_fraction=0.0)
    of_floats = loaded(
        {name: (array / 255).astype(np.float32) for name, array in grey.items()}, validation_fraction=0.0
    )
    assert torch.equal(of_bytes.train_ND, of_floats.train_ND)
    assert torch.equal(of_bytes.test_ND, torch.from_numpy(grey["test"].reshape(8, 24) / np.float32(255)))
    binary = {name: array > 127 for name, array in grey.items()}
    assert torch.equal(loaded(binary).test_ND, torch.from_numpy(binary["test"].reshape(8, 24)).float())
    assert of_bytes.image_shape == GREY


def test_channels_first_and_last_are_the_same_tensors(loaded: Any) -> None:
    first = arrays(shape=COLOUR)
    last = {name: array.transpose(0, 2, 3, 1) for name, array in first.items()}
    one, other = loaded(first), loaded(last)
    assert one.image_shape == other.image_shape == COLOUR
    assert torch.equal(one.train_ND, other.train_ND)
    assert one.n_pixels == 72


def test_validation_images_of_ones_own_are_used_and_none_are_cut(loaded: Any, tmp_path: Path) -> None:
    given = arrays(validation=images(5, seed=2))
    data = loaded(given)
    assert (len(data.train_ND), len(data.validation_ND), len(data.test_ND)) == (20, 5, 8)
    assert torch.equal(data.validation_ND, torch.from_numpy(given["validation"].reshape(5, 24) / np.float32(255)))
    config = DataConfig(name="file", path="own.npz").identified()
    assert sizes(config)[:3] == (20, 5, 8)
    assert config.validation_fraction == 0


def test_validation_images_are_cut_from_the_training_images_without_those(loaded: Any) -> None:
    data = loaded(arrays(), validation_fraction=0.25, train_size=10)
    assert (len(data.train_ND), len(data.validation_ND)) == (10, 5)
    stored = {tuple(row) for row in images(20).reshape(20, -1).tolist()}
    found = [tuple(row) for row in (torch.cat([data.train_ND, data.validation_ND]) * 255).round().int().tolist()]
    assert len(set(found)) == 15
    assert set(found) <= stored


def test_labels_follow_their_images(loaded: Any) -> None:
    given = arrays(train_labels=np.arange(20, dtype=np.uint8), test_labels=np.arange(8))
    data = loaded(given, validation_fraction=0.25)
    for image_D, label in zip(data.train_ND, data.train_N, strict=True):
        assert torch.equal(image_D, torch.from_numpy(given["train"][int(label)].reshape(-1) / np.float32(255)))
    assert sorted([*data.train_N.tolist(), *data.validation_N.tolist()]) == list(range(20))
    assert data.with_labels("my_task") is data


def test_without_labels_a_task_that_needs_them_says_so(loaded: Any) -> None:
    data = loaded(arrays())
    assert [len(data.train_N), len(data.validation_N), len(data.test_N)] == [0, 0, 0]
    with pytest.raises(
        DataError, match=r"^my_task: expected images with labels, got none in own.npz. Add train_labels"
    ):
        data.with_labels("my_task")


# --- binarisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_floats", [False, True], ids=["bytes", "floats"])
def test_every_binarisation_works_on_own_images(loaded: Any, as_floats: bool) -> None:
    grey = arrays(n_train=400, n_test=200)
    given = {name: (array / 255).astype(np.float32) for name, array in grey.items()} if as_floats else grey
    gray = loaded(given)
    threshold = loaded(given, binarization="threshold")
    assert torch.equal(threshold.test_ND, (gray.test_ND > 0.5).float())
    fixed, again = loaded(given, binarization="fixed"), loaded(given, binarization="fixed")
    other = loaded(given, binarization="fixed", split_seed=1)
    assert torch.equal(fixed.test_ND, again.test_ND)
    assert not torch.equal(fixed.test_ND, other.test_ND)
    resampled = loaded(given, binarization="resampled")
    assert torch.equal(resampled.train_ND, gray.train_ND)
    assert torch.equal(resampled.test_ND, fixed.test_ND)
    assert torch.equal(resampled.validation_ND, fixed.validation_ND)
    for drawn in (fixed.test_ND, fixed.train_ND, fixed.validation_ND):
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
    variance = (gray.test_ND * (1 - gray.test_ND)).sum()
    assert abs((fixed.test_ND.sum() - gray.test_ND.sum()) / variance.sqrt()) < 5


# --- identity -------------------------------------------------------------------------------------------------------


def test_the_digest_can_be_computed_from_the_arrays(tmp_path: Path) -> None:
    given = arrays(train_labels=np.arange(20), test_labels=np.arange(8))
    path = write_file(tmp_path / "own.npz", **given)
    sha = hashlib.sha256()
    for name in ("test", "test_labels", "train", "train_labels"):
        array = given[name]
        sha.update(f"{name} {array.dtype.name} {array.shape}\n".encode() + array.tobytes())
    assert DataConfig(name="file", path=str(path)).identified().digest == sha.hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"train": images(20, seed=5)},
        {"test": images(7, seed=1)},
        {"validation": images(3)},
        {"train": images(20).reshape(20, 6, 4), "test": images(8, seed=1).reshape(8, 6, 4)},
        {"train_labels": np.zeros(20, int), "test_labels": np.zeros(8, int)},
    ],
    ids=["a pixel", "fewer images", "validation", "shape", "labels"],
)
def test_the_digest_changes_with_whatever_is_in_the_file(change: dict[str, Any]) -> None:
    assert checked(arrays(), "x").digest != checked(arrays(**change), "x").digest


def test_a_file_that_changed_since_the_grid_was_read_is_refused(tmp_path: Path) -> None:
    config = DataConfig(name="file", path=str(write_file(tmp_path / "own.npz"))).identified()
    write_file(tmp_path / "own.npz", train=images(20, seed=9))
    with pytest.raises(DataError) as caught:
        load(config)
    assert f"{tmp_path}/own.npz: expected the images that the grid was read with, sha256 {config.digest[:16]}" in str(
        caught.value
    )


def test_a_file_that_is_not_on_this_machine_says_where_it_must_be(tmp_path: Path) -> None:
    config = DataConfig(name="file", path=str(write_file(tmp_path / "own.npz"))).identified()
    (tmp_path / "own.npz").unlink()
    with pytest.raises(DataError) as caught:
        load(config)
    assert str(caught.value).startswith(f"{tmp_path}/own.npz: expected the images of this grid on ")
    assert str(caught.value).endswith("found none. With --executor ray they must be at the same path on every node.")


def test_own_images_that_were_not_read_with_the_grid_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected images that were read before, got 'file'. Use DataConfig"):
        load(DataConfig(name="file", path="own.npz"))


# --- what is refused ------------------------------------------------------------------------------------------------

FLOATS = images(20) / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": None}, "test: expected an array, got none. Found: train."),
        ({"train": None}, "train: expected an array, got none. Found: test."),
        (
            {"validaton": images(3)},
            "expected arrays among train, validation, test, train_labels, validation_labels, test_labels, got "
            "'validaton'. Did you mean 'validation'?",
        ),
        (
            {"train": images(20).astype(float), "test": images(8).astype(float)},
            "train: expected floats in [0, 1], got 0 to 255. Divide them by 255, or save bytes.",
        ),
        ({"train": FLOATS * 2 - 1, "test": FLOATS}, "train: expected floats in [0, 1], got -1 to 1."),
        (
            {"train": FLOATS, "test": np.where(FLOATS > 0.9, np.nan, FLOATS)},
            "test: expected floats in [0, 1], got NaN.",
        ),
        (
            {"train": FLOATS, "test": np.where(FLOATS > 0.9, np.inf, FLOATS)},
            "test: expected floats in [0, 1], got 0 to inf.",
        ),
        (
            {"train": images(20).astype(int)},
            "train: expected floats in [0, 1], bytes or booleans, got int64. Save bytes (0 to 255) as "
            "array.astype(numpy.uint8).",
        ),
        (
            {"train": images(20) // 255},
            "train: expected bytes from 0 to 255, got 0 and 1 alone, which would be next to black. Save images of two "
            "values as array.astype(bool).",
        ),
        (
            {"train": images(20).reshape(-1)},
            "train: expected images (N, D), (N, H, W) or (N, C, H, W), got shape (480,).",
        ),
        ({"train": images(0)}, "train: expected at least one image of at least one pixel, got shape (0, 4, 6)."),
        ({"test": images(8, (6, 4))}, "test: expected images of the shape of train, (4, 6), got (6, 4)."),
        ({"test": images(8) / 255}, "test: expected the type of train, uint8, got float64."),
        (
            {"train": np.array([None, 1], dtype=object).reshape(1, 2)},
            "train: expected numbers, got Python objects, which are not read. Save an array of numbers.",
        ),
        (
            {"train_labels": np.zeros(20, int)},
            "test_labels: expected labels of all splits or of none, got none of this one.",
        ),
        (
            {"train_labels": np.zeros(19, int), "test_labels": np.zeros(8, int)},
            "train_labels: expected a label for each of the 20 images, got shape (19,).",
        ),
        (
            {"train_labels": np.zeros(20), "test_labels": np.zeros(8)},
            "train_labels: expected whole numbers from 0, got float64.",
        ),
        (
            {"train_labels": np.arange(20) - 1, "test_labels": np.zeros(8, int)},
            "train_labels: expected whole numbers from 0, got -1 to 18.",
        ),
        ({"validation_labels": np.zeros(3, int)}, "validation_labels: expected images validation with them, got none."),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)
def test_other_arrays_are_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_file(tmp_path / "own.npz", **changes)
    with pytest.raises(DataError) as caught:
        DataConfig(name="file", path=str(path)).identified()
    assert str(caught.value) == f"data.path: {path}: {message}"


def test_a_missing_file_is_refused_with_the_path_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        DataConfig(name="file", path="digits.npz").identified()
    assert str(caught.value) == (
        f"data.path: digits.npz: expected a file of numpy.savez, found none at {tmp_path}/digits.npz."
    )
    with pytest.raises(DataError, match=r"found a folder. Images in a folder: name: folder.$"):
        DataConfig(name="file", path=str(tmp_path)).identified()


def test_files_that_are_no_npz_or_damaged_are_refused(tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(DataError) as caught:
            DataConfig(name="file", path=str(tmp_path / name)).identified()
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"data.path: {tmp_path}/{name}: ")

    np.save(tmp_path / "one.npy", images(3))
    (tmp_path / "empty.npz").touch()
    for name in ("one.npy", "empty.npz"):
        assert refusal(name) == "expected a file of numpy.savez (.npz), got another one."
    whole = write_file(tmp_path / "own.npz", n_train=500).read_bytes()
    damaged = bytearray(whole)
    damaged[5000] ^= 0xFF
    (tmp_path / "damaged.npz").write_bytes(damaged)
    assert refusal("damaged.npz").startswith("expected a whole file of numpy.savez, got: Bad CRC-32")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("train.npy", "no array")
    assert refusal("text.npz").startswith("expected a whole file of numpy.savez, got: the magic string is not correct")


def test_images_larger_than_memory_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "own.npz", n_train=2000, n_test=1000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 300_000})())
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(DataError) as caught:
        DataConfig(name="file", path=str(path)).identified()
    assert "expected images that fit into memory, 0.0 GB of which are free, got about 0.0 GB. Use fewer" in str(
        caught.value
    )


def test_a_fraction_for_validation_is_refused_where_there_are_validation_images(tmp_path: Path) -> None:
    path = str(write_file(tmp_path / "own.npz", validation=images(3)))
    with pytest.raises(DataError) as caught:
        DataConfig(name="file", path=path, validation_fraction=0.1).identified()
    assert str(caught.value) == (
        "data.validation_fraction: expected none with data that have validation images, got 0.1. Leave it out."
    )
    assert DataConfig(name="file", path=path, validation_fraction=0.0).identified().n_images == (20, 3, 8)


def test_no_form_is_forgotten() -> None:
    assert set(own_images.OwnImages._fields) == set(own_images.ARRAYS)
