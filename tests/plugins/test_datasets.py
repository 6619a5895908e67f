"""A plug-in with images of one's own: named in a grid, read in every process, and known by what its images are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.config import RunConfig
from harness.datasets.descriptions import DataError
from harness.events import Finished
from harness.grid.load import Grid, GridError, load_grid
from harness.plugins import quick_check
from harness.plugins.registry import PluginError, Registry, datasets_of, load_registry
from harness.plugins.whole_check import check_whole
from harness.train import train

PLUGIN = """
import torch
from harness.datasets import ImageSource

class Base(ImageSource):  # abstract: no splits
    size = 5

class Stripes(Base):
    name = "stripes"

    def splits(self):
        images = torch.zeros(40, 3, 4, self.size)
        images[:, 1, ::2] = torch.rand(40, 1, 1)
        return {"train": images[:30], "test": images[30:]}
"""
GRID = """
data: {name: stripes, validation_fraction: 0.2}
model: {n_latents: 2, n_categories: 3, hidden: [8]}
training: {epochs: 1, batch_size: 8}
evaluation: {n_images: 2, bound_samples: 1}
estimators: [rloo]
seeds: [0]
"""
Read = Callable[..., tuple[Grid, Registry]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(plugin: str = PLUGIN, grid: str = GRID) -> tuple[Grid, Registry]:
        (tmp_path / "mine.py").write_text(plugin)
        (tmp_path / "grid.yaml").write_text(grid)
        registry = load_registry([tmp_path / "mine.py"])
        return load_grid(tmp_path / "grid.yaml", registry), registry

    return read


def test_a_grid_names_the_images_of_a_plug_in_and_a_run_trains_on_them(read: Read) -> None:
    grid, registry = read()
    (run,) = grid.runs
    assert (run.data.n_images, run.data.image_shape) == ((30, 0, 10), (3, 4, 5))
    assert list(datasets_of(registry)) == ["stripes"]
    assert registry.keys() == REGISTRY.keys()
    events = list(train(run, registry))
    assert isinstance(events[-1], Finished)


def test_without_the_plug_in_the_name_is_unknown(read: Read, tmp_path: Path) -> None:
    read()
    with pytest.raises(GridError) as caught:
        load_grid(tmp_path / "grid.yaml", REGISTRY)
    assert "2:14: data.name: expected one of mnist-mini, " in str(caught.value)
    assert str(caught.value).endswith("got 'stripes'. See: harness list datasets. One of your own needs --plugin FILE.")


def test_a_name_that_is_misspelt_gets_a_suggestion(read: Read) -> None:
    with pytest.raises(GridError, match=r"file, folder, stripes, got 'stripe'. Did you mean 'stripes'\? One of"):
        read(grid=GRID.replace("stripes", "stripe"))


def test_the_key_follows_the_images_and_not_the_text_of_the_plug_in(read: Read) -> None:
    def key(plugin: str) -> str:
        return read(plugin)[0].runs[0].key

    first = key(PLUGIN)
    assert key(f"{PLUGIN}\n# a comment\n") == first
    assert key(PLUGIN.replace("::2", "::3")) != first


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("return {", "return 3 # {"),
            "data.name: stripes: expected splits() to return a dict with train and test, got int.",
        ),
        (("torch.zeros(40", "1 / 0 * torch.zeros(40"), "got ZeroDivisionError: division by zero (mine.py:12)"),
        (("torch.rand(40, 1, 1)", "2.0"), "data.name: stripes: train: expected floats in [0, 1], got 0 to 2."),
        (("def splits(self)", "def __init__(self, a): pass\n    def splits(self)"), "missing 1 required positional"),
    ],
)
def test_a_plug_in_that_fails_is_one_line_of_the_grid(read: Read, change: tuple[str, str], line: str) -> None:
    with pytest.raises(GridError) as caught:
        read(PLUGIN.replace(*change))
    (message,) = caught.value.messages
    assert line in message
    assert ":2:14: data.name: stripes: " in message


def test_plug_ins_with_the_same_or_no_name_are_refused(read: Read, tmp_path: Path) -> None:
    twice = PLUGIN + '\nclass Again(Stripes):\n    name = "stripes"\n'
    with pytest.raises(PluginError, match=r"mine.py: expected a new data set name, got 'stripes', which "):
        read(twice)
    with pytest.raises(PluginError, match=r"TypeError: Stripes: expected a class attribute name such as 'my_data'"):
        read(PLUGIN.replace('name = "stripes"', "pass"))
    with pytest.raises(PluginError, match=r"TypeError: Stripes: expected a new name of a data set, got 'folder'"):
        read(PLUGIN.replace('name = "stripes"', 'name = "folder"'))


TASK = """
from harness.tasks.gated_experts import GatedExperts

class Mine(GatedExperts):
    \"\"\"My own experts.\"\"\"
    name = "mine"
"""


def test_images_and_a_task_of_plug_ins_are_checked_and_trained_together(read: Read) -> None:
    plugin = PLUGIN.replace(
        "images[30:]}", 'images[30:], "train_labels": torch.arange(30) % 4, "test_labels": torch.arange(10) % 4}'
    )
    grid = "task: mine\n" + "\n".join(
        line for line in GRID.splitlines() if not line.startswith(("model", "evaluation"))
    )
    found, registry = read(plugin + TASK, grid)
    assert quick_check.check(found.runs, registry).conformance == "passed"
    assert isinstance(list(train(found.runs[0], registry))[-1], Finished)


@pytest.mark.parametrize("same", [True, False])
def test_the_whole_check_reads_images_twice(read: Read, same: bool) -> None:
    plugin = (
        PLUGIN
        if same
        else PLUGIN.replace("torch.rand(40, 1, 1)", "next(numbers)").replace(
            "class Base", "import itertools\nnumbers = itertools.cycle([0.1, 0.2, 0.3])\n\nclass Base"
        )
    )
    (result,) = check_whole(datasets_of(read(plugin)[1])["stripes"])
    if same:
        assert (result.failed, result.text) == (False, "30 for training and 10 for testing")
    else:
        assert result.failed
        assert result.text.startswith("stripes: expected the same images at every call of splits()")


def test_a_worker_has_the_run_as_text_and_the_plug_in_as_a_file(read: Read, tmp_path: Path) -> None:
    (run,) = read()[0].runs
    there = RunConfig.from_json(run.to_json())
    assert isinstance(list(train(there, load_registry([tmp_path / "mine.py"])))[-1], Finished)
    with pytest.raises(DataError, match=r"^stripes: expected the plug-in with this data set, got none."):
        list(
            train(
                there.model_copy(update={"seed": 1, "data": there.data.model_copy(update={"train_size": 5})}), REGISTRY
            )
        )
