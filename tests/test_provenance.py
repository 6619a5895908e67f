"""The commit in the provenance is that of the package or none, whatever repository and variables surround it."""

import os
import subprocess
from pathlib import Path

import pytest

from harness import provenance

NONE = {"git_commit": None, "git_dirty": None}
PYPROJECT = '[project]\nname = "argmax-harness"\n'


def git(folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org", "-c", "protocol.file.allow=always"]
    done = subprocess.run([*command, "-C", str(folder), *arguments], capture_output=True, check=True, env=clean)
    return done.stdout.decode().strip()


def package(top: Path, pyproject: str = PYPROJECT) -> Path:
    """Make files as this project has them; return the folder of its package."""
    (top / "harness").mkdir(parents=True)
    (top / "harness" / "provenance.py").write_text("")
    (top / "pyproject.toml").write_text(pyproject)
    return top / "harness"


def committed(top: Path) -> str:
    top.mkdir(parents=True, exist_ok=True)
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-qm", "first", "--allow-empty")
    return git(top, "rev-parse", "HEAD")


def test_a_checkout_has_its_commit_and_says_whether_files_changed(tmp_path: Path) -> None:
    folder = package(tmp_path / "own")
    commit = committed(tmp_path / "own")
    assert provenance.git_state(folder) == {"git_commit": commit, "git_dirty": False}
    (tmp_path / "own" / "results.txt").write_text("untracked")
    assert provenance.git_state(folder)["git_dirty"] is False
    (folder / "provenance.py").write_text("changed = True")
    assert provenance.git_state(folder) == {"git_commit": commit, "git_dirty": True}
    (tmp_path / "harness").symlink_to(folder)
    assert provenance.git_state(tmp_path / "harness")["git_commit"] == commit
    git(tmp_path / "own", "worktree", "add", "-q", str(tmp_path / "tree"))
    assert provenance.git_state(tmp_path / "tree" / "harness") == {"git_commit": commit, "git_dirty": False}
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path / 'own'}", "shallow")
    assert provenance.git_state(tmp_path / "shallow" / "harness") == {"git_commit": commit, "git_dirty": False}


def test_a_submodule_has_its_own_commit(tmp_path: Path) -> None:
    package(tmp_path / "own")
    commit = committed(tmp_path / "own")
    outer = committed(tmp_path / "outer")
    git(tmp_path / "outer", "submodule", "add", "-q", str(tmp_path / "own"), "part")
    assert provenance.git_state(tmp_path / "outer" / "part" / "harness")["git_commit"] == commit != outer


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("place", [".venv/lib/site-packages", "vendor/argmax", "."])
def test_a_copy_within_another_repository_has_no_commit(tmp_path: Path, place: str, ignored: bool) -> None:
    mine = '[project]\nname = "my-thesis"\n'
    folder = package(tmp_path / place, mine if place == "." else PYPROJECT)
    if ignored:
        (tmp_path / ".gitignore").write_text("*\n")
    committed(tmp_path)
    assert provenance.git_state(folder) == NONE


def test_untracked_or_uncommitted_sources_have_no_commit(tmp_path: Path) -> None:
    folder = package(tmp_path)
    assert provenance.git_state(folder) == NONE
    git(tmp_path, "init", "-q")
    assert provenance.git_state(folder) == NONE
    git(tmp_path, "add", ".")
    assert provenance.git_state(folder) == NONE


def test_variables_that_git_exports_to_a_hook_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path / "own")
    commit = committed(tmp_path / "own")
    committed(tmp_path / "other")
    for name, value in {
        "GIT_DIR": tmp_path / "other" / ".git",
        "GIT_WORK_TREE": tmp_path / "other",
        "GIT_INDEX_FILE": tmp_path / "other" / ".git" / "index",
        "GIT_PREFIX": "sub/",
        "GIT_CEILING_DIRECTORIES": tmp_path / "own",
        "GIT_CONFIG_PARAMETERS": f"'core.worktree={tmp_path / 'other'}'",
        "GIT_NAMESPACE": "x",
        "GIT_PAGER": "sleep 60",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert provenance.git_state(folder) == {"git_commit": commit, "git_dirty": False}
    assert provenance.git_state(tmp_path) == NONE


def test_without_git_or_with_a_hanging_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path / "own")
    committed(tmp_path / "own")
    waits = tmp_path / "bin" / "git"
    waits.parent.mkdir()
    waits.write_text("#!/bin/sh\nexec sleep 60\n")
    waits.chmod(0o755)
    monkeypatch.setattr(provenance, "GIT_TIMEOUT_S", 0.2)
    monkeypatch.setenv("PATH", str(waits.parent) + ":/bin:/usr/bin")
    assert provenance.git_state(folder) == NONE
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(folder) == NONE
