"""Data sets in memory: what mnist-mini holds, how it is cut, and each binarisation."""

import hashlib
import tomllib
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from small_datasets import Settings

from harness.datasets import build_mnist_mini
from harness.datasets import load as data_module
from harness.datasets.descriptions import DATASETS, MNIST_MINI_SHA256, DataError
from harness.datasets.files import default_data_dir
from harness.datasets.load import Dataset, binarize_batch, load

FROZEN_VALIDATION = [3, 3, 5, 7, 1, 5, 8, 5, 4, 3, 4, 0]
FROZEN_TRAIN = [6, 7, 3, 8, 0, 8, 6, 8, 9, 5, 3, 6]
FROZEN_FIXED_INK = 104417

NPZ = ROOT / "harness" / "datasets" / "mnist_mini.npz"


def loaded(**changes: object) -> Dataset:
    return load(replace(Settings("mnist-mini"), **changes))


def rows(image_ND: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in image_ND.numpy()}


@pytest.fixture(scope="module")
def gray() -> Dataset:
    return loaded()


def test_mnist_mini_has_its_sizes_types_and_range(gray):
    """4,000 training images, of which a tenth validates, and 1,000 for the test, as float32 in [0, 1]."""
    assert [len(part) for part in (gray.train_ND, gray.validation_ND, gray.test_ND)] == [3600, 400, 1000]
    for image_ND, label_N in zip(
        (gray.train_ND, gray.validation_ND, gray.test_ND), (gray.train_N, gray.validation_N, gray.test_N), strict=True
    ):
        assert image_ND.shape == (len(label_N), 784)
        assert image_ND.dtype == torch.float32
        assert image_ND.is_contiguous()
        assert label_N.dtype == torch.int64
        assert image_ND.min() == 0
        assert image_ND.max() == 1
    assert (gray.n_pixels, gray.image_shape, gray.name) == (784, (28, 28), "mnist-mini")
    assert gray.split("validation") is gray.validation_ND


def test_mnist_mini_has_as_many_of_each_digit(gray):
    train_N = torch.cat([gray.train_N, gray.validation_N])
    assert train_N.bincount().tolist() == [400] * 10
    assert gray.test_N.bincount().tolist() == [100] * 10


def test_mnist_mini_looks_like_digits(gray):
    """Zeros are empty in the middle where ones are full; the mean ink is that of MNIST (0.1307)."""
    middle = 14 * 28 + 14
    assert gray.train_ND[gray.train_N == 1][:, middle].mean() > 0.7
    assert gray.train_ND[gray.train_N == 0][:, middle].mean() < 0.15
    assert gray.train_ND.mean().item() == pytest.approx(0.1307, abs=0.005)


def test_mnist_mini_has_its_checksum():
    assert hashlib.sha256(NPZ.read_bytes()).hexdigest() == MNIST_MINI_SHA256
    assert MNIST_MINI_SHA256 in (NPZ.parent / "NOTICE.md").read_text()


def test_a_damaged_mnist_mini_is_refused(monkeypatch):
    monkeypatch.setattr("harness.datasets.load.MNIST_MINI_SHA256", "0" * 64)
    monkeypatch.setattr("harness.datasets.load._raw", data_module._raw.__wrapped__)
    with pytest.raises(
        DataError, match=r"^mnist_mini.npz: expected sha256 0{64}, got 625e8c65\w+ \(819,281 bytes\)\.$"
    ):
        loaded()


def test_mnist_mini_is_packed_to_the_same_bytes():
    with np.load(NPZ, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    assert list(arrays) == [f"{s}_{what}" for s in ("train", "test") for what in ("images", "labels", "indices")]
    assert len(set(arrays["train_indices"].tolist())) == 4000
    packed = build_mnist_mini.pack(arrays)
    assert packed == build_mnist_mini.pack(arrays)
    if zlib.ZLIB_RUNTIME_VERSION != "1.2.13":
        pytest.skip(f"the file was packed with zlib 1.2.13, this is {zlib.ZLIB_RUNTIME_VERSION}")
    assert packed == NPZ.read_bytes()


def test_the_wheel_contains_the_data_and_its_notice():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "harness*" in settings["packages"]["find"]["include"]
    assert {"*.npz", "NOTICE.md"} <= set(settings["package-data"]["harness.datasets"])
    assert settings["package-data"]["harness.plugins"] == ["estimator_facts.json"]


def test_the_splits_share_no_image(gray):
    train, validation, test = map(rows, (gray.train_ND, gray.validation_ND, gray.test_ND))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train) == 3600


def test_the_split_depends_on_its_own_seed_alone(gray):
    """A run's seed reaches only torch's generators; the cut does not move with them."""
    torch.manual_seed(123)
    np.random.seed(123)
    assert torch.equal(loaded().validation_ND, gray.validation_ND)
    assert torch.equal(loaded().train_ND, gray.train_ND)
    other = loaded(split_seed=1)
    assert rows(other.validation_ND) != rows(gray.validation_ND)
    assert torch.equal(other.test_ND, gray.test_ND)


def test_the_first_images_of_the_split_never_change(gray):
    """Numbers of stored runs depend on the order of the images: a change here says "numbers change"."""
    assert gray.validation_N[:12].tolist() == FROZEN_VALIDATION
    assert gray.train_N[:12].tolist() == FROZEN_TRAIN
    assert int(loaded(binarization="fixed").test_ND.sum()) == FROZEN_FIXED_INK


def test_no_validation_is_an_empty_tensor():
    data = loaded(validation_fraction=0.0)
    assert data.validation_ND.shape == (0, 784)
    assert data.validation_N.shape == (0,)
    assert len(data.train_ND) == 4000


def test_train_size_takes_the_first_training_images(gray):
    small = loaded(train_size=128)
    assert torch.equal(small.train_ND, gray.train_ND[:128])
    assert torch.equal(small.train_N, gray.train_N[:128])
    assert torch.equal(small.validation_ND, gray.validation_ND)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_size": 3601}, "data.train_size: expected 1 to 3,600 for mnist-mini, got 3,601."),
        ({"train_size": 0}, "data.train_size: expected 1 to 3,600 for mnist-mini, got 0."),
        ({"validation_fraction": 1.0}, "data.validation_fraction: expected 0 <= fraction < 1, got 1.0."),
        ({"validation_fraction": -0.1}, "data.validation_fraction: expected 0 <= fraction < 1, got -0.1."),
        ({"validation_fraction": float("nan")}, "data.validation_fraction: expected 0 <= fraction < 1, got nan."),
        (
            {"validation_fraction": 0.9999},
            "data.validation_fraction: expected to leave a training image of mnist-mini, got 0.9999.",
        ),
    ],
)
def test_an_impossible_cut_is_refused(changes, message):
    with pytest.raises(DataError) as caught:
        loaded(**changes)
    assert str(caught.value) == message


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(DataError, match=r"got 'mnist-mimi'. Did you mean 'mnist-mini'\? One of"):
        loaded(name="mnist-mimi")
    with pytest.raises(
        DataError, match=r"got 'qqq'. See: harness list datasets. One of your own needs --plugin FILE.$"
    ):
        loaded(name="qqq")


# --- binarisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threshold", "fixed"])
def test_binarized_images_are_zeros_and_ones_everywhere(kind):
    data = loaded(binarization=kind)
    for part in (data.train_ND, data.validation_ND, data.test_ND):
        assert ((part == 0) | (part == 1)).all()


def test_threshold_is_above_one_half(gray):
    data = loaded(binarization="threshold")
    assert torch.equal(data.train_ND, (gray.train_ND > 0.5).float())
    assert torch.equal(data.test_ND, (gray.test_ND > 0.5).float())


def test_fixed_is_one_draw_for_every_run(gray):
    """Loaded twice the same; by another seed another; the mean is that of the gray values."""
    first, second = loaded(binarization="fixed"), loaded(binarization="fixed")
    assert torch.equal(first.train_ND, second.train_ND)
    assert torch.equal(first.test_ND, second.test_ND)
    assert not torch.equal(first.test_ND, loaded(binarization="fixed", split_seed=1).test_ND)
    assert_mean(first.train_ND, gray.train_ND)
    assert_mean(first.test_ND, gray.test_ND)


def test_fixed_draws_belong_to_the_image():
    """Another cut moves images between splits and redraws none."""
    one, other = loaded(binarization="fixed"), loaded(binarization="fixed", validation_fraction=0.5)
    assert rows(one.train_ND) | rows(one.validation_ND) == rows(other.train_ND) | rows(other.validation_ND)


def test_black_and_white_pixels_are_never_drawn_otherwise(gray):
    fixed = loaded(binarization="fixed")
    assert (fixed.train_ND[gray.train_ND == 0] == 0).all()
    assert (fixed.train_ND[gray.train_ND == 1] == 1).all()


def test_resampled_training_images_are_drawn_with_every_batch(gray):
    """Reproducible by the generator, different from draw to draw, gray on average."""
    data, index_B = loaded(binarization="resampled"), torch.arange(256)
    assert torch.equal(data.train_ND, gray.train_ND)
    generator = torch.Generator().manual_seed(5)
    first, second = data.train_batch(index_B, generator), data.train_batch(index_B, generator)
    again = data.train_batch(index_B, torch.Generator().manual_seed(5))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert ((first == 0) | (first == 1)).all()
    mean_BD = torch.stack([data.train_batch(index_B, generator) for _ in range(20)]).mean(0)
    assert_mean(mean_BD, gray.train_ND[:256], draws=20)


def test_resampled_is_evaluated_on_the_fixed_draw():
    resampled, fixed = loaded(binarization="resampled"), loaded(binarization="fixed")
    assert torch.equal(resampled.validation_ND, fixed.validation_ND)
    assert torch.equal(resampled.test_ND, fixed.test_ND)


@pytest.mark.parametrize("kind", ["none", "threshold", "fixed"])
def test_other_batches_are_a_plain_gather(kind):
    data, index_B = loaded(binarization=kind), torch.tensor([7, 3, 3])
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    assert torch.equal(data.train_batch(index_B, generator), data.train_ND[index_B])
    assert torch.equal(generator.get_state(), state)
    assert binarize_batch(data.train_ND, kind, generator) is data.train_ND


def test_a_changed_batch_leaves_the_data_alone(gray):
    batch = gray.train_batch(torch.arange(4))
    before = gray.train_ND[:4].clone()
    batch.zero_()
    assert torch.equal(gray.train_ND[:4], before)
    loaded().train_ND.zero_()
    assert torch.equal(loaded().train_ND, gray.train_ND)


def test_data_move_to_a_device(gray):
    moved = gray.to("meta")
    assert {moved.train_ND.device.type, moved.validation_N.device.type, moved.test_ND.device.type} == {"meta"}


def assert_mean(draw: torch.Tensor, gray: torch.Tensor, draws: int = 1) -> None:
    """|z| < 5 for the mean over all pixels of independent Bernoulli draws."""
    variance = (gray * (1 - gray)).sum() / draws
    assert abs((draw.sum() - gray.sum()) / variance.sqrt()) < 5


# --- where data sets are --------------------------------------------------------------------------------------------


def test_the_catalogue_describes_every_data_set_in_one_line():
    assert list(DATASETS) == [
        "mnist-mini",
        "mnist",
        "fashion-mnist",
        "kmnist",
        "emnist-letters",
        "omniglot",
        "mnist-binarized",
    ]
    for name, info in DATASETS.items():
        assert info.name == name
        assert "\n" not in info.description
        assert info.image_shape == (28, 28)
        assert info.how == "part of this package" or info.how.startswith(f"harness data fetch {name}")


@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if not info.embedded])
def test_a_missing_data_set_says_which_command_gets_it(name, tmp_path):
    with pytest.raises(DataError) as caught:
        load(Settings(name=name), data_dir=tmp_path)
    expected = f"{name}: expected files in {tmp_path / name}, found none. Get it with: harness data fetch {name}"
    assert str(caught.value).startswith(expected)


def test_the_data_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "chosen"))
    assert default_data_dir() == tmp_path / "chosen"
    with pytest.raises(DataError, match="chosen/mnist, found none"):
        loaded(name="mnist")
    monkeypatch.delenv("HARNESS_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "argmax-harness" / "data"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_data_dir() == Path("/home/someone/.local/share/argmax-harness/data")
