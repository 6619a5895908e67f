"""Pictures: what each shows, at which steps, and never two of one name and step."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cut_runs import cut_after, without_times
from PIL import Image

from estimators import REGISTRY
from harness import train
from harness.config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.datasets.load import load
from harness.events import EpochDone, Event, Picture
from harness.tasks.latents import LatentUse
from harness.training.pictures import final_pictures, is_pictured, png_grid
from harness.training.state import start

Make = Callable[..., RunConfig]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def pictures_of(run: RunConfig) -> dict[str, bytes]:
    state = start(run, REGISTRY, torch.device("cpu"))
    shape = run.model.n_latents, run.model.n_categories
    use = LatentUse(torch.full(shape, 1 / shape[1]).double(), torch.arange(shape[0]).double() / shape[0])
    return {picture.name: picture.png for picture in final_pictures(run, state, use)}


def test_pictures_show_the_test_images_first(tiny_run: Make) -> None:
    run = tiny_run(evaluation=EvaluationConfig(n_images=3))
    found = pictures_of(run)
    assert list(found) == ["originals", "reconstructions", "prior_samples", "traversals"]
    row, images = pixels(found["originals"]), load(run.data).test_ND
    assert row.shape == (28, 3 * 28 + 2 * 2)
    for i in range(3):
        shown = row[:, 30 * i : 30 * i + 28] / 255
        assert np.abs(shown - images[i].reshape(28, 28).numpy()).max() < 1 / 255


@pytest.mark.parametrize(("n_latents", "n_categories"), [(3, 4), (11, 19)])
def test_a_traversal_is_of_at_most_8_latents_and_16_classes(tiny_run: Make, n_latents: int, n_categories: int) -> None:
    model = ModelConfig(n_latents=n_latents, n_categories=n_categories, hidden=(16,))
    sheet = pixels(pictures_of(tiny_run(model=model))["traversals"])
    assert sheet.shape == (30 * min(n_latents, 8) - 2, 30 * min(n_categories, 16) - 2)


def test_a_grid_puts_each_image_in_its_place() -> None:
    x_RCD = torch.rand(2, 3, 20)
    sheet = pixels(png_grid(x_RCD, (4, 5)))
    assert sheet.shape == (2 * 4 + 2, 3 * 5 + 2 * 2)
    for row in range(2):
        for column in range(3):
            tile = sheet[6 * row : 6 * row + 4, 7 * column : 7 * column + 5]
            assert (tile == (x_RCD[row, column].reshape(4, 5) * 255).round().numpy()).all()
    assert not sheet[4:6].any()
    assert not sheet[:, 5:7].any()


def test_pictures_come_at_powers_of_two_before_the_last_epoch() -> None:
    assert [epoch for epoch in range(1, 21) if is_pictured(epoch, 20)] == [1, 2, 4, 8, 16]
    assert [epoch for epoch in range(1, 9) if is_pictured(epoch, 8)] == [1, 2, 4]
    assert not is_pictured(1, 1)


def shown(events: list[Event]) -> list[tuple[str, int, bool]]:
    return [(event.name, event.step, event.final) for event in events if isinstance(event, Picture)]


def test_a_run_shows_its_pictures_over_training(tiny_run: Make) -> None:
    events = list(train.train(tiny_run(training=TrainingConfig(epochs=5, batch_size=50)), REGISTRY))
    over_training = [(n, 4 * e, False) for e in (1, 2, 4) for n in ("reconstructions", "prior_samples")]
    end = [(name, 20, True) for name in ("originals", "reconstructions", "prior_samples", "traversals")]
    assert shown(events) == over_training + end
    steps = {event.step for event in events if isinstance(event, EpochDone)}
    assert {step for _, step, _ in shown(events)} <= steps
    samples = [event.png for event in events if isinstance(event, Picture) and event.name == "prior_samples"]
    assert len(set(samples)) == 4  # the noise is the same, but the model is not


def test_with_no_pictures_there_are_none_at_any_step(tiny_run: Make) -> None:
    none = EvaluationConfig(bound_samples=0, n_images=0)
    run = tiny_run(evaluation=none, training=TrainingConfig(epochs=3, batch_size=50))
    assert shown(list(train.train(run, REGISTRY))) == []


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_run_cut_anywhere_shows_each_picture_once_with_the_same_bits(tiny_run: Make, epoch: int) -> None:
    run = tiny_run(training=TrainingConfig(epochs=5, batch_size=50))
    first, checkpoint = cut_after(run, epoch)
    rest = list(train.train(run, REGISTRY, checkpoint))
    assert without_times(first) + without_times(rest) == without_times(train.train(run, REGISTRY))
