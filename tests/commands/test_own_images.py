"""Images of one's own on the command line: swept, known again, listed, and not fetched."""

import json
from pathlib import Path

import pytest
from command_line import harness
from own_images import COLOUR, images, write_file

GRID = """
name: own
data: {name: file, path: own.npz}
model: {n_latents: 2, n_categories: 3, hidden: [8]}
training: {epochs: 1, batch_size: 10}
evaluation: {bound_samples: 1, n_images: 2}
estimators: [rloo]
seeds: [0]
"""


@pytest.fixture
def folder(tmp_path: Path, out: Path) -> Path:
    (tmp_path / "grid.yaml").write_text(GRID)
    write_file(tmp_path / "own.npz", shape=COLOUR)
    return tmp_path


def n_runs(folder: Path) -> list[str]:
    """The states of the runs that the grid has now."""
    done = harness("status", "--grid", "grid.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return [run["status"] for run in json.loads(done.stdout)["runs"]]


def test_a_sweep_on_own_images_is_finished_until_they_are_edited(folder: Path) -> None:
    command = "run", "--grid", "grid.yaml", "--workers", "1"
    first = harness(*command, cwd=folder)
    assert first.returncode == 0, first.stderr
    assert "1 finished." in first.stdout
    (folder / "own.npz").touch()  # the same images
    assert n_runs(folder) == ["finished"]
    write_file(folder / "own.npz", train=images(20, COLOUR, 9), shape=COLOUR)
    assert n_runs(folder) == ["planned"]
    assert harness(*command, cwd=folder).returncode == 0
    assert n_runs(folder) == ["finished"]
    (folder / "own.npz").unlink()  # what was run is still known
    assert n_runs(folder) == ["finished"]
    said = harness("status", "--grid", "grid.yaml", cwd=folder).stderr
    assert said.startswith("note: these are the runs as of 20")
    assert ". The grid cannot be read now: grid.yaml:3:26: data.path: own.npz: expected a file of numpy.savez, " in said


def test_a_missing_file_is_one_line_and_nothing_runs(folder: Path) -> None:
    (folder / "own.npz").unlink()
    done = harness("run", "--grid", "grid.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        f"grid.yaml:3:26: data.path: own.npz: expected a file of numpy.savez, found none at {folder}/own.npz.\n"
    )


@pytest.mark.parametrize("name", ["file", "folder"])
def test_own_images_are_listed_and_not_fetched(name: str) -> None:
    rows = {row["name"]: row for row in json.loads(harness("list", "datasets", "--json").stdout)}
    assert rows[name]["how"] == f"data: {{name: {name}, path: …}}"
    assert f"{name}  " in harness("list", "datasets").stdout
    done = harness("data", "fetch", name)
    assert done.returncode == 2
    assert done.stderr == (
        f"{name}: expected a built-in data set, since images of your own are not fetched. Write in the grid: "
        f"data: {{name: {name}, path: …}}\n"
    )


def test_the_data_sets_of_a_plug_in_are_listed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from harness.datasets import ImageSource\n\nclass Mine(ImageSource):\n"
        '    """Bars."""\n\n    name = "bars"\n\n    def splits(self):\n        return {}\n'
    )
    done = harness("list", "datasets", "--plugin", tmp_path / "mine.py", "--json")
    row = json.loads(done.stdout)[-1]
    assert row == {"name": "bars", "train": None, "test": None, "what": "Bars.", "how": "data: {name: bars}"}
