"""Images of one's own in folders of pictures, with or without folders of classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import COLOUR, GREY, images, write_pictures
from PIL import Image

from harness.config import DataConfig
from harness.datasets.descriptions import DataError
from harness.datasets.load import load

Settings = Callable[..., DataConfig]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return lambda **settings: DataConfig(name="folder", path="own", **settings).identified()


@pytest.fixture
def refusal(own: Settings) -> Callable[..., str]:
    def refusal(**settings: object) -> str:
        with pytest.raises(DataError) as caught:
            own(**settings)
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix("data.path: own: ")

    return refusal


@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=["grey", "colour"])
def test_pictures_in_two_folders_are_read_as_they_are(own: Settings, shape: tuple[int, ...]) -> None:
    write_pictures(Path("own/train"), 9, shape=shape)
    write_pictures(Path("own/test"), 4, shape=shape, seed=1)
    Path("own/test/notes.txt").write_text("not a picture")
    Path("own/.cache").mkdir()
    data = load(own(validation_fraction=0.0))
    assert data.image_shape == shape
    expected = images(4, shape, 1).reshape(4, -1) / np.float32(255)
    assert torch.equal(data.test_ND, torch.from_numpy(expected))
    assert sorted(data.train_ND.sum(1).tolist()) == pytest.approx(
        sorted((images(9, shape) / 255).reshape(9, -1).sum(1))
    )
    assert len(data.train_N) == 0


def test_folders_of_classes_give_labels_in_alphabetical_order_of_all_splits(own: Settings) -> None:
    for split, classes in {"train": "abc", "validation": "b", "test": "ac"}.items():
        for index, name in enumerate(classes):
            write_pictures(Path("own", split, name), 2 + index, seed=index)
    data = load(own())
    assert sorted(data.train_N.tolist()) == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert data.validation_N.tolist() == [1, 1]
    assert data.test_N.tolist() == [0, 2, 0, 2, 2]  # the classes in turn, so that pictures show all


def test_black_and_white_and_palette_pictures_are_read(own: Settings) -> None:
    write_pictures(Path("own/train"), 3, mode="1")
    write_pictures(Path("own/test"), 3, mode="1")
    assert own().image_shape == GREY
    assert set(load(own(validation_fraction=0.0)).train_ND.unique().tolist()) == {0.0, 1.0}
    write_pictures(Path("own/train"), 3, shape=COLOUR, mode="P")
    write_pictures(Path("own/test"), 3, shape=COLOUR, mode="P")
    assert own().image_shape == COLOUR


@pytest.mark.parametrize(("size", "shape"), [(5, (5, 5)), ((3, 7), (3, 7))])
def test_a_size_resizes_all_pictures(own: Settings, size: int | tuple[int, int], shape: tuple[int, int]) -> None:
    write_pictures(Path("own/train"), 3)
    write_pictures(Path("own/test"), 3, shape=(9, 5))
    config = own(size=size, validation_fraction=0.0)
    assert config.image_shape == shape
    expected = Image.fromarray(images(3, (9, 5))[0]).resize(shape[::-1], Image.Resampling.BILINEAR)
    assert torch.equal(load(config).test_ND[0], torch.from_numpy(np.asarray(expected).reshape(-1) / np.float32(255)))
    assert config.canonical != own(size=4).canonical


def test_an_edited_a_renamed_and_an_added_picture_are_noticed(own: Settings) -> None:
    write_pictures(Path("own/train"), 3)
    write_pictures(Path("own/test"), 3)
    digests = [own().digest]
    Image.fromarray(images(1, seed=7)[0]).save("own/train/01.png")
    digests.append(own().digest)
    Path("own/train/00.png").rename("own/train/99.png")
    digests.append(own().digest)
    Image.fromarray(images(1, seed=8)[0]).save("own/test/98.png")
    digests.append(own().digest)
    assert len(set(digests)) == 4


# --- what is refused ------------------------------------------------------------------------------------------------


def test_folders_of_another_form_are_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert refusal() == f"expected a folder with folders train and test, found none at {tmp_path}/own."
    Path("own").touch()
    assert refusal().endswith("found a file. Arrays in a file: name: file.")
    Path("own").unlink()
    write_pictures(Path("own/train"), 3)
    assert refusal() == "test: expected folders train and test, found train."
    Path("own/test").mkdir()
    assert refusal() == "test: expected at least one picture, found none."
    Path("own/test/a").mkdir()
    assert refusal().startswith("test: expected a picture of each class, got: Found no valid file for the classes a.")
    write_pictures(Path("own/test/a"), 2)
    assert refusal() == "train: expected folders of classes in all splits or in none, got none here."
    write_pictures(Path("own/test"), 2)
    assert refusal() == "test: expected pictures or folders of classes, got both."
    Path("own/val").mkdir()
    assert refusal() == "expected folders train, test and, if wanted, validation, got 'val'."


def test_pictures_that_differ_are_refused_by_name(refusal: Callable[..., str]) -> None:
    write_pictures(Path("own/train"), 3)
    write_pictures(Path("own/test"), 2, shape=(6, 4))
    assert refusal() == (
        "test/00.png: expected 4 × 6 greyscale as the first picture has, got 6 × 4 greyscale. "
        "Set data.size to resize all of them."
    )
    write_pictures(Path("own/test"), 2, shape=COLOUR)
    assert refusal() == "test/00.png: expected 4 × 6 greyscale as the first picture has, got 4 × 6 RGB."


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "mode RGBA"), ("LA", "mode LA"), ("I;16", "mode I;16")])
def test_pictures_of_other_modes_are_refused(refusal: Callable[..., str], mode: str, kind: str) -> None:
    write_pictures(Path("own/train"), 3)
    write_pictures(Path("own/test"), 2, mode=mode)
    assert refusal() == f"test/00.png: expected a greyscale or RGB picture of 8 bits, got {kind}."


def test_damaged_pictures_are_refused(refusal: Callable[..., str]) -> None:
    write_pictures(Path("own/train"), 3)
    write_pictures(Path("own/test"), 2)
    Path("own/test/01.png").write_bytes(b"no picture")
    assert refusal().startswith("test/01.png: expected a picture, got: cannot identify image file")
    Path("own/test/01.png").write_bytes(Path("own/test/00.png").read_bytes()[:60])
    assert refusal().startswith("test/01.png: expected a picture, got: ")


def test_pictures_larger_than_memory_are_refused(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(Path("own/train"), 3)
    write_pictures(Path("own/test"), 2)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 500})())
    assert refusal().startswith("expected images that fit into memory, ")
