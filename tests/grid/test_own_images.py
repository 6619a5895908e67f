"""Images of one's own in a grid: keys follow what is in the files, and mistakes are lines with a position."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_images import COLOUR, images, write_file, write_pictures

from estimators import REGISTRY
from harness.config import DataConfig, EstimatorConfig, RunConfig
from harness.grid.load import Grid, load_grid
from harness.storage import plan

REST = "\nestimators: [rloo]\nseeds: [0]\nevaluation: {n_images: 2}\n"
Read = Callable[[str], Grid]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def read(text: str) -> Grid:
        Path("grid.yaml").write_text(text + REST)
        return load_grid(Path("grid.yaml"), REGISTRY)

    return read


# --- built-in data sets stay as they are ----------------------------------------------------------------------------


def test_the_key_and_the_settings_of_a_run_with_built_in_data_stay_as_they_are() -> None:
    run = RunConfig(estimator=EstimatorConfig(name="rloo", params={"n_samples": 4}))
    assert run.key == "2374b56a2fe9e75e"
    assert run.data.canonical == (
        '{"binarization":"none","name":"mnist-mini","split_seed":0,"train_size":null,"validation_fraction":0.1}'
    )
    stored = ["name", "binarization", "validation_fraction", "split_seed", "train_size"]
    assert [name for name in run.flat() if name.startswith("data.")] == [f"data.{name}" for name in stored]
    assert run.data.model_dump_json() == (
        '{"name":"mnist-mini","binarization":"none","validation_fraction":0.1,"split_seed":0,"train_size":null}'
    )


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_run_knows_its_images_without_reading_them_again(read: Read) -> None:
    write_file(Path("own.npz"), shape=COLOUR)
    (run,) = read("data: {name: file, path: own.npz}").runs
    Path("own.npz").unlink()
    again = RunConfig.from_json(run.to_json())
    assert again == run
    assert (again.key, again.data.n_images, again.data.image_shape) == (run.key, (20, 0, 8), COLOUR)
    assert again.data.location == str(Path("own.npz").absolute())
    stored = {name: value for name, value in run.flat().items() if name.startswith("data.")}
    assert stored["data.path"] == "own.npz"
    assert stored["data.digest"] == run.data.digest
    assert (stored["data.n_images"], stored["data.image_shape"]) == ("[20, 0, 8]", "[3, 4, 6]")


def test_the_key_follows_the_images_and_not_where_they_are(read: Read) -> None:
    def key(path: str) -> str:
        return read(f"data: {{name: file, path: {path}}}").runs[0].key

    write_file(Path("own.npz"))
    first = key("own.npz")
    Path("elsewhere").mkdir()
    Path("own.npz").rename("elsewhere/mine.npz")
    assert key("elsewhere/mine.npz") == first
    assert key(str(Path("elsewhere/mine.npz").absolute())) == first
    write_file(Path("elsewhere/mine.npz"), train=images(20, seed=3))
    assert key("elsewhere/mine.npz") != first


def test_files_are_an_axis_and_only_their_paths_are_shown(read: Read) -> None:
    write_file(Path("a.npz"))
    write_file(Path("b.npz"), n_train=30, shape=COLOUR)
    grid = read("data: {name: file, path: [a.npz, b.npz]}")
    assert [run.label for run in grid.runs] == ["rloo · path=a.npz", "rloo · path=b.npz"]
    assert len({run.key for run in grid.runs}) == 2


def test_own_and_built_in_data_are_swept_together(read: Read) -> None:
    write_file(Path("a.npz"))
    grid = read("zip: [{data.name: [mnist-mini, file], data.path: [null, a.npz]}]")
    assert [run.label for run in grid.runs] == ["rloo · data=mnist-mini · path=none", "rloo · data=file · path=a.npz"]


def test_sizes_of_pictures_are_swept(read: Read) -> None:
    write_pictures(Path("own/train"), 10)
    write_pictures(Path("own/test"), 3)
    grid = read("data: {name: folder, path: own, size: [8, 9]}")  # one size: rows and columns
    assert [run.data.image_shape for run in grid.runs] == [(8, 9)]
    grid = read("data: {name: folder, path: own, size: [[8, 9], [4, 4]]}")
    assert [run.data.image_shape for run in grid.runs] == [(8, 9), (4, 4)]


def test_a_file_that_is_edited_while_the_process_lives_is_read_again(read: Read) -> None:
    text = "data: {name: file, path: own.npz}"
    write_file(Path("own.npz"))
    first = read(text).runs[0].data
    write_file(Path("own.npz"), n_train=21)
    assert read(text).runs[0].data.n_images == (21, 0, 8)
    assert first.n_images == (20, 0, 8)


def test_the_plan_of_own_images_is_not_known_from_the_text_alone(read: Read, tmp_path: Path) -> None:
    write_file(Path("own.npz"))
    for text, is_known in [("data: {name: file, path: own.npz}", False), ("data: {name: mnist-mini}", True)]:
        grid = read(text)
        folder = tmp_path / "results" / grid.name
        folder.mkdir(parents=True, exist_ok=True)
        assert plan.save_plan(folder, grid, plan.plan_fingerprint()) is not None
        assert (plan.planned_runs(folder, grid.text) is not None) == is_known


# --- notes and mistakes ---------------------------------------------------------------------------------------------


def test_images_that_cannot_be_drawn_are_noted(read: Read) -> None:
    write_file(Path("own.npz"), shape=(5, 4, 6))
    note = (
        "evaluation.n_images 2 shows no pictures: images have 5 channels, and only 1 (greyscale) and 3 (RGB) are drawn"
    )
    assert note in read("data: {name: file, path: own.npz}").notes
    write_file(Path("own.npz"), shape=COLOUR)
    assert note not in read("data: {name: file, path: own.npz}").notes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "data: {name: file}",
            "1:14: data.path: expected the path of the images with data file, got none. Add path: …",
        ),
        (
            "data: {path: own.npz}",
            "1:14: data.path: expected none with data mnist-mini, got 'own.npz'. Use name: file or folder.",
        ),
        (
            "data: {name: file, path: own.npz, size: 3}",
            "1:41: data.size: expected none with data file, got [3, 3]. Only name: folder has one.",
        ),
        (
            "data: {name: folder, path: own, size: 0}",
            "1:39: data.size: expected a whole number of pixels >= 1, or [height, width], got 0.",
        ),
        (
            "data: {name: file, path: [own.npz, none.npz]}",
            "1:36: data.path: none.npz: expected a file of numpy.savez, found none at {here}/none.npz.",
        ),
        (
            "data:\n  name: file\n  path: bad.npz",
            "3:9: data.path: bad.npz: train: expected floats in [0, 1], got 0 to 255. "
            "Divide them by 255, or save bytes.",
        ),
        (
            "data: {name: fil, path: own.npz}",
            "1:25: data.path: expected none with data fil, got 'own.npz'. Use name: file or folder.",
        ),
        (
            "data: {name: my_data}",
            "1:14: data.name: expected one of mnist-mini, mnist, fashion-mnist, kmnist, emnist-letters, omniglot, "
            "mnist-binarized, file, folder, got 'my_data'. See: harness list datasets. "
            "One of your own needs --plugin FILE.",
        ),
        (
            "data: {name: file, path: val.npz, validation_fraction: 0.2}",
            "1:56: data.validation_fraction: expected none with data that have validation images, got 0.2. "
            "Leave it out.",
        ),
        (
            "data: {name: file, path: own.npz, train_size: 19}",
            "1:47: data.train_size: expected 1 to 18 for own.npz, got 19.",
        ),
        (
            "data: {name: file, path: own.npz, digest: abc}",
            "1:35: data.digest: expected a key of data, got 'digest'. Known: name, binarization, validation_fraction, "
            "split_seed, train_size, path, size.",
        ),
        (
            "data: {name: file, path: [own.npz, ./own.npz]}",
            "1:36: data.path[1]: expected each run once, got './own.npz'. The same setting: data.path[0] on line 1.",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_position(refuse: Any, text: str, line: str) -> None:
    write_file(Path("own.npz"))
    write_file(Path("val.npz"), validation=images(3))
    write_file(Path("bad.npz"), train=images(20).astype(float), test=images(8).astype(float))
    assert refuse(text + REST) == [line.format(here=Path.cwd())]


def test_too_many_pictures_are_refused_with_the_number_of_own_test_images(refuse: Any) -> None:
    write_file(Path("own.npz"))
    assert refuse("data: {name: file, path: own.npz}\nevaluation: {n_images: 9}\nestimators: [rloo]\nseeds: [0]") == [
        "2:24: evaluation.n_images: expected at most the 8 test images of own.npz, got 9."
    ]


def test_settings_that_were_not_identified_are_refused() -> None:
    data = DataConfig(name="file", path="own.npz")
    with pytest.raises(ValueError, match=r"expected images that were read before, got 'file'"):
        RunConfig(estimator=EstimatorConfig(name="rloo"), data=data)
    assert np.isclose(data.validation_fraction, 0.1)
