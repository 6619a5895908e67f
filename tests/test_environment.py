"""Environment variables, home and current folders, and file permissions follow the conventions of Unix."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from harness.cli import main
from harness.commands.shared import default_out
from harness.datasets.files import default_data_dir, write_file
from harness.environment import SurroundingsError, expanded, home, path_variable, user_folder, variable
from reports.contract.atomic_files import write_atomically


def refused(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HARNESS_OUT", "HARNESS_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, "")
        assert (variable(name), path_variable(name)) == (None, None)
    assert default_out() == Path("results")
    assert default_data_dir() == tmp_path / ".local/share/argmax-harness/data"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = Path(pwd.getpwuid(0).pw_dir)
    known = {"~": tmp_path, "~/out": tmp_path / "out", "~root/x": root / "x", "~nobody-of-that-name/x": None}
    for given, path in known.items():
        assert expanded(given) == (Path(given) if path is None else path)
    assert expanded("a/~/b") == Path("a/~/b")
    monkeypatch.setenv("HARNESS_OUT", "~/out")
    monkeypatch.setenv("HARNESS_DATA_DIR", "~/data")
    assert default_out() == tmp_path / "out"
    assert default_data_dir() == tmp_path / "data"


def test_an_xdg_folder_counts_if_it_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, folder in {"/data": Path("/data"), "data": tmp_path / "below", "~/d": tmp_path / "d"}.items():
        monkeypatch.setenv("XDG_DATA_HOME", given)
        assert user_folder("XDG_DATA_HOME", "below") == folder


@pytest.mark.parametrize("given", [None, ""])
def test_without_home_the_system_is_asked(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("HOME") if given is None else monkeypatch.setenv("HOME", given)
    assert home() == Path(pwd.getpwuid(os.getuid()).pw_dir)


def test_without_any_home_one_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "HARNESS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SurroundingsError, match="HOME: expected the home folder, got none"):
        home()
    assert refused("list", "estimators") == 0  # a list needs no home
    assert "straight_through" in capsys.readouterr().out
    assert refused("data", "fetch", "mnist") == 2
    assert capsys.readouterr().err.startswith("HOME: expected the home folder, got none, and user ")


def test_paths_of_options_are_expanded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refused("status", "--grid=~/none.yaml") == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/none.yaml:1:1: file: ")
    assert refused("report", "--from=~/none") == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/none/mlflow.db: expected an MLflow store")


def test_a_current_folder_that_was_deleted_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refused("list", "datasets") == 2
    assert capsys.readouterr().err == (
        "current folder: expected one that exists, got: No such file or directory. Change to another folder.\n"
    )


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    code = (
        f"import os; os.umask({umask}); from pathlib import Path; "
        "from harness.storage import checksummed_file; from harness.datasets.files import write_file; "
        "from reports.contract.atomic_files import write_atomically; "
        "checksummed_file.write(Path('a'), b''); write_file(Path('b'), b''); write_atomically(Path('c'), ''); "
        "Path('d').mkdir()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "abc"] == [mode] * 3
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o777 & ~umask


def test_rewriting_a_file_leaves_no_partial_file(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_atomically(tmp_path / "x", text)
        write_file(tmp_path / "y", text.encode())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]
