"""Commands with plugins, mirrors and names that somebody else wrote; the interface that only this machine can reach."""

import os
import re
import shutil
from pathlib import Path

import pytest
from command_line import run_captured
from hostile_store import UNSEEN

from harness.cli import main
from harness.datasets import fetch
from harness.datasets.descriptions import DataError


def test_what_a_plugin_raises_does_not_move_the_cursor(tmp_path, capfd):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("raise ValueError('\\x1b[2J\\x1b]0;x\\x07 \\u202e')\n")
    code, said = run_captured(capfd, "list", "estimators", "--plugin", str(plugin))
    assert code == 2
    assert said.count("\n") == 1
    assert r"\x1b[2J" in said
    assert not re.search(UNSEEN, said)


def test_what_a_mirror_says_does_not_move_the_cursor(tmp_path, capfd, monkeypatch):
    def lying(info: object, scratch: Path) -> list[Path]:
        raise DataError("HTTPError: \x1b[2J\x1b]0;x\x07")

    monkeypatch.setattr(fetch, "_from_mirrors", lying)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    code, said = run_captured(capfd, "data", "fetch", "fashion-mnist")
    assert code == 2
    assert said.count(r"\x1b[2J") == 2
    assert not re.search(UNSEEN, said)


@pytest.mark.parametrize("name", ["../mnist", "/etc", ".", "mnist/../../x", "\x1b[2J"])
def test_the_name_of_a_data_set_is_one_of_the_catalogue(tmp_path, capfd, monkeypatch, name):
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "data"))
    code, said = run_captured(capfd, "data", "fetch", name)
    assert code == 2
    assert said.startswith("data.name: expected one of mnist-mini, ")
    assert not re.search(UNSEEN, said)
    assert list(tmp_path.iterdir()) == []


def test_the_interface_of_mlflow_listens_on_loopback_only(monkeypatch, out):
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append(arguments))
    with pytest.raises(SystemExit):
        main(["ui", "--tracking-uri", f"sqlite:///{out}/mlflow.db"])
    (arguments,) = started
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"


def test_a_plugin_next_to_a_grid_runs_only_if_it_is_named(tmp_path, capfd, monkeypatch):
    (tmp_path / "plugin.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name in ("sitecustomize.py", "conftest.py", "estimators.py", "harness_plugin.py"):
        shutil.copy(tmp_path / "plugin.py", tmp_path / name)
    (tmp_path / "grid.yaml").write_text("estimators: [plugin]\nseeds: [0]\n")
    monkeypatch.chdir(tmp_path)
    assert run_captured(capfd, "run", "--grid", "grid.yaml", "--dry-run")[0] == 2
    assert not (tmp_path / "ran").exists()
    assert run_captured(capfd, "run", "--grid", "grid.yaml", "--plugin", "plugin.py", "--dry-run")[0] == 2
    assert (tmp_path / "ran").exists()
