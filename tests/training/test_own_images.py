"""Runs on images of one's own: trained like others, and drawn in their shape and colours."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import COLOUR, GREY, images, write_file, write_pictures
from PIL import Image

from estimators import REGISTRY
from harness.config import DataConfig, EvaluationConfig, RunConfig
from harness.events import EpochDone, Finished, Picture
from harness.train import train
from harness.training.pictures import GAP, png_grid

Make = Callable[..., RunConfig]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (4, 5)], ids=str)
def test_a_sheet_has_each_image_in_its_place_and_its_colours(shape: tuple[int, ...]) -> None:
    tiles = images(6, shape, 2)
    x_RCD = torch.from_numpy(tiles.reshape(2, 3, -1) / np.float32(255))
    sheet = pixels(png_grid(x_RCD, shape))
    assert sheet.shape == (2 * 4 + GAP, 3 * 5 + 2 * GAP, *((3,) if shape[0] == 3 else ()))
    for row in range(2):
        for column in range(3):
            shown = sheet[row * (4 + GAP) :, column * (5 + GAP) :][:4, :5]
            tile = tiles[3 * row + column]
            expected = tile.transpose(1, 2, 0) if shape[0] == 3 else tile.reshape(4, 5)
            assert (shown == expected).all()


@pytest.mark.parametrize(("shape", "drawn"), [(GREY, True), (COLOUR, True), ((5, 4, 6), False)], ids=str)
@pytest.mark.parametrize("binarization", ["none", "resampled"])
def test_a_run_ends_with_pictures_of_what_can_be_drawn(
    tiny_run: Make, tmp_path: Path, shape: tuple[int, ...], drawn: bool, binarization: str
) -> None:
    path = write_file(tmp_path / "own.npz", shape=shape)
    data = DataConfig(name="file", path=str(path), binarization=binarization).identified()  # type: ignore[arg-type]
    events = list(train(tiny_run(data=data, evaluation=EvaluationConfig(n_images=3, bound_samples=2)), REGISTRY))
    assert isinstance(events[-1], Finished)
    assert any(isinstance(event, EpochDone) for event in events)
    shown = {event.name: pixels(event.png) for event in events if isinstance(event, Picture) and event.final}
    assert set(shown) == ({"originals", "reconstructions", "prior_samples", "traversals"} if drawn else set())
    if drawn and binarization == "none":
        first = images(8, shape, 1)[0]
        assert (shown["originals"][:4, :6] == (first.transpose(1, 2, 0) if first.ndim == 3 else first)).all()


def test_a_run_on_a_folder_of_colour_pictures_ends(tiny_run: Make, tmp_path: Path) -> None:
    for split, n in {"train": 12, "test": 6}.items():
        write_pictures(tmp_path / split, n, shape=COLOUR)
    data = DataConfig(name="folder", path=str(tmp_path), validation_fraction=0.25).identified()
    events = list(train(tiny_run(data=data, evaluation=EvaluationConfig(n_images=2, bound_samples=2)), REGISTRY))
    assert isinstance(events[-1], Finished)
