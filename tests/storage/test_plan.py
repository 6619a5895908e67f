"""Plans are stored with their previous versions, and used only with the grid, plugins and code that made them."""

import errno
import gzip
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from plans import GRID, Load, assert_same_runs, file_names

from harness.plugins.registry import load_registry
from harness.storage import checksummed_file, plan
from harness.storage.checksummed_file import DamagedError
from harness.storage.plan import last_plugins, plan_fingerprint, planned_runs, save_plan, sweep_folder
from harness.storage.plan_file import read_plan

PLUGIN = """
from estimators import Pathwise

class Mine(Pathwise):
    name, relaxes = "mine", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)
"""


def test_a_new_grid_is_stored_and_an_unchanged_one_left_alone(folder: Path, load_text: Load) -> None:
    grid = load_text(GRID)
    assert save_plan(folder, grid, "digest") == []
    assert_same_runs(read_plan(folder / "frozen.json"), grid)
    before = (folder / "frozen.json").stat()
    assert save_plan(folder, load_text(GRID), "digest") == []
    assert (folder / "frozen.json").stat() == before
    assert file_names(folder) == {"frozen.json"}


def test_edits_are_reported_and_previous_versions_kept(folder: Path, load_text: Load) -> None:
    save_plan(folder, load_text(GRID))
    first = (folder / "frozen.json").read_bytes()
    since = read_plan(folder / "frozen.json").saved_at[:16]
    edited = GRID.replace("[2, 4]", "4").replace("straight_through", "straight_through\n  - reinforce")
    assert save_plan(folder, load_text(edited)) == [
        f"grid changed since {since}: 4 runs added, 4 removed (their results",
        "  stay)",
    ]
    assert file_names(folder) == {"frozen.json", "frozen-0001.json"}
    assert (folder / "frozen-0001.json").read_bytes() == first
    lines = save_plan(folder, load_text(edited.replace("epochs: 10", "epochs: 20")))
    assert " ".join(map(str.strip, lines)) == (
        f"grid changed since {since}: 16 runs changed (they are new runs) training.epochs: 10 → 20 (16 runs)"
    )
    assert file_names(folder) == {"frozen.json", "frozen-0001.json", "frozen-0002.json"}


def test_a_new_version_of_the_code_alone_is_no_change(folder: Path, load_text: Load) -> None:
    grid = load_text(GRID)
    save_plan(folder, grid, "one")
    assert save_plan(folder, grid, "two") == []
    assert read_plan(folder / "frozen.json").fingerprint == "two"
    assert file_names(folder) == {"frozen.json"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        checksummed_file.add_checksum(b"{}"),
        checksummed_file.add_checksum(b"[]"),
        checksummed_file.add_checksum(b"\xff"),
        checksummed_file.add_checksum(b'{"format": 2, "runs": []}'),
        checksummed_file.add_checksum(b'{"format": 2, "settings": [{"label": "a"}], "shared": {}, "runs": []}'),
        checksummed_file.add_checksum(b'{"format": 2, "settings": 3, "shared": {}, "runs": []}'),
        checksummed_file.add_checksum(gzip.compress(b'{"format": 2}')[:-9]),
        checksummed_file.add_checksum(b"\x1f\x8bgarbage"),
    ],
)
def test_a_damaged_file_is_set_aside_with_a_line(folder: Path, load_text: Load, content: bytes) -> None:
    path = folder / "frozen.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_plan(path)
    assert planned_runs(folder, GRID) is None
    grid = load_text(GRID)
    (line,) = save_plan(folder, grid)
    assert "\n" not in line
    assert line.startswith(f"{path}: expected ")
    assert line.endswith("kept as frozen.json.damaged-1; earlier edits of the grid are not reported.")
    assert (folder / "frozen.json.damaged-1").read_bytes() == content
    assert_same_runs(read_plan(path), grid)


def test_a_plan_of_an_older_version_is_kept_with_a_line(folder: Path, load_text: Load) -> None:
    path, old = (
        folder / "frozen.json",
        checksummed_file.add_checksum(b'{"format": 1, "columns": {}, "settings": [["a", 1]]}'),
    )
    path.write_bytes(old)
    assert planned_runs(folder, GRID) is None
    assert last_plugins(folder) == ()
    grid = load_text(GRID)
    assert save_plan(folder, grid, plan_fingerprint()) == [
        f"{path}: expected a plan of format 2, got format 1. It is kept as frozen-0001.json; earlier edits of the grid"
        " are not reported."
    ]
    assert (folder / "frozen-0001.json").read_bytes() == old
    assert_same_runs(read_plan(path), grid)
    assert planned_runs(folder, GRID) is not None
    assert save_plan(folder, grid, plan_fingerprint()) == []
    assert file_names(folder) == {"frozen.json", "frozen-0001.json"}


def test_a_grid_that_cannot_be_stored_is_one_line(
    folder: Path, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    (line,) = save_plan(folder, load_text(GRID))
    assert line == (
        f"{folder / 'frozen.json'}: the grid could not be saved (No space left on device). "
        "Later edits will not be reported."
    )


def test_planned_runs_are_found_by_the_text_of_the_grid(folder: Path, load_text: Load) -> None:
    grid = load_text(GRID)
    save_plan(folder, grid, plan_fingerprint())
    found = planned_runs(folder, GRID)
    assert found is not None
    assert [(run.key, run.name, run.label) for run in found] == [(run.key, run.name, run.label) for run in grid.runs]
    assert planned_runs(folder, GRID + "\n") is None
    assert planned_runs(folder.parent, GRID) is None
    copy = folder.parent / "other"
    folder.rename(copy)
    assert planned_runs(copy, GRID) is None


def test_a_plan_without_a_fingerprint_is_not_used(folder: Path, load_text: Load) -> None:
    save_plan(folder, load_text(GRID))
    assert planned_runs(folder, GRID) is None


def test_the_fingerprint_of_a_plan_covers_its_plugins(folder: Path, tmp_path: Path, load_text: Load) -> None:
    plugin, text = tmp_path / "mine.py", GRID + "description: with a plugin\n"
    plugin.write_text(PLUGIN)
    text = text.replace("straight_through", "mine")
    save_plan(folder, load_text(text, load_registry([plugin])), plan_fingerprint([plugin]))
    found = planned_runs(folder, text, [plugin])
    assert found is not None
    assert {run.key for run in found} == {run.key for run in load_text(text, load_registry([plugin])).runs}
    assert planned_runs(folder, text) is None
    plugin.write_text(PLUGIN + "\n# edited\n")
    assert planned_runs(folder, text, [plugin]) is None
    lines = save_plan(folder, load_text(text, load_registry([plugin])), plan_fingerprint([plugin]))
    assert re.fullmatch(r"  estimator\.source: [0-9a-f]{8} → [0-9a-f]{8} \(4 runs\)", lines[-1])
    assert planned_runs(folder, text, [plugin]) is not None
    plugin.unlink()
    assert planned_runs(folder, text, [plugin]) is None


def test_a_plugin_that_imports_other_code_has_no_fingerprint(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    for extra in ("import numpy", "from my_package.parts import A", "from . import other", "def f(): import foo", "?"):
        plugin.write_text(f"{PLUGIN}\n{extra}\n")
        assert plan_fingerprint([plugin]) is None
    plugin.write_text(f"{PLUGIN}\nimport math, torch.nn\nfrom collections.abc import Mapping\n")
    assert plan_fingerprint([plugin]) not in (None, plan_fingerprint())


@pytest.mark.parametrize("kind", ["harness.estimators", "harness.tasks", "harness.datasets"])
def test_installed_plugins_have_no_fingerprint(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    point = EntryPoint("mine", "mine:Mine", kind)
    monkeypatch.setattr(plan, "entry_points", lambda group: (point,) if group == kind else ())
    assert plan_fingerprint() is None


def test_a_plan_made_by_other_harness_sources_is_not_used(
    folder: Path, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(folder, load_text(GRID), plan_fingerprint())
    assert planned_runs(folder, GRID) is not None
    monkeypatch.setattr(plan, "source_sha256", lambda: "other")
    assert planned_runs(folder, GRID) is None


def test_the_folder_of_a_grid_is_found_by_its_name_or_its_files(tmp_path: Path) -> None:
    for text, expected in {
        GRID: "mine",
        "seeds: [0]\n": "my-grid",
        "name: [1]\n": None,
        "name: ../up\n": None,
        "[1]": None,
        "{": None,
        "": None,
    }.items():
        assert sweep_folder(tmp_path, Path("my grid.yaml"), text) == (tmp_path / expected if expected else None)


def test_planned_runs_are_found_without_torch(folder: Path, load_text: Load) -> None:
    load_text(GRID)
    save_plan(folder, load_text(GRID), plan_fingerprint())
    code = (
        "import sys; from pathlib import Path; from harness.storage.plan import planned_runs, sweep_folder\n"
        "assert not {'torch', 'harness.grid.load', 'pydantic'} & sys.modules.keys()\n"
        "out, text = Path(sys.argv[1]), sys.argv[2]\n"
        "print(len(planned_runs(sweep_folder(out, Path('g.yaml'), text), text)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder.parent), GRID], capture_output=True, text=True)
    assert done.stdout == "16 False\n", done.stderr
