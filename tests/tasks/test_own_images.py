"""The tasks that take images work on those of one's own, of any shape; those that need labels say so first."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_images import COLOUR, images, write_file

from harness.commands.run_checks import check_data
from harness.datasets.descriptions import DataError
from harness.events import Finished
from harness.grid.load import Grid, load_grid
from harness.plugins.registry import load_registry
from harness.train import train

GRID = """
task: {task}
data: {{name: file, path: own.npz}}
training: {{epochs: 1, batch_size: 6}}
estimators: [rloo]
seeds: [0]
"""
LABELS = {"train_labels": np.arange(20) % 5, "test_labels": np.arange(8) % 5}
Read = Callable[..., Grid]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def read(task: str, **changes: object) -> Grid:
        write_file(Path("own.npz"), shape=COLOUR, **changes)
        Path("grid.yaml").write_text(GRID.format(task=task))
        return load_grid(Path("grid.yaml"), load_registry())

    return read


@pytest.mark.parametrize(
    ("task", "labels"), [("gated_experts", LABELS), ("mnist_sum", LABELS), ("structured_prediction", {})]
)
def test_tasks_train_on_own_images_in_colour(read: Read, task: str, labels: dict[str, np.ndarray]) -> None:
    (run,) = read(task, **labels).runs
    check_data([run], load_registry())
    events = list(train(run, load_registry()))
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("task", ["gated_experts", "mnist_sum"])
def test_a_task_that_needs_labels_refuses_images_without_before_the_first_run(read: Read, task: str) -> None:
    (run,) = read(task, validation=images(3, COLOUR)).runs
    with pytest.raises(DataError) as caught:
        check_data([run], load_registry())
    assert str(caught.value) == (
        f"{task}: expected images with labels, got none in own.npz. Add train_labels and test_labels."
    )


def test_labels_that_do_not_suit_a_task_are_refused_before_the_first_run(read: Read) -> None:
    (run,) = read("mnist_sum", train_labels=np.arange(20), test_labels=np.arange(8)).runs
    with pytest.raises(Exception, match=r"^mnist_sum: expected .* digits, got 18 with labels up to 19.$"):
        check_data([run], load_registry())
