"""A store lies in any folder that the file system allows: one function makes its URI, MLflow and SQLAlchemy agree."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from harness import tracking
from harness.cli import main
from harness.tracking import Tracker, TrackingError
from reports import load
from reports.contract.artifact_paths import local_path
from reports.contract.sqlite_uri import sqlite_path, sqlite_uri, unambiguous
from reports.store.load import ReportError
from reports.store.tracking_uri import checked_uri

FOLDERS = [
    *("my results", "müller", "it's", "run (1)", "user@host", "C# code", "a&b=c;[d]", "100%", "a%20b", "%2F", "why?"),
    *("q?x=1", "two\nlines", "back\\slash", "日本%C3", ":memory:"),
]
LETTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.sampled_from("%?#&+ ")


@given(st.text(LETTERS, min_size=1))
def test_a_uri_is_read_back_alike_by_sqlalchemy_and_the_harness(name: str) -> None:
    path = Path("/somewhere", name, "mlflow.db")
    if name in (".", ".."):
        return
    uri = sqlite_uri(path)
    assert sqlite_path(uri) == path
    assert make_url(uri).database == str(path)
    assert make_url(f"{uri}?timeout=1").database == str(path)
    assert unambiguous(uri) == uri


@given(st.text(string.ascii_letters + "%?/ .:#@2F5", min_size=1, max_size=30))
def test_a_uri_of_a_user_is_read_as_sqlalchemy_reads_it(text: str) -> None:
    uri = f"sqlite:////{text}"
    database = make_url(uri).database
    assert sqlite_path(uri) == Path(os.path.abspath(database))
    assert make_url(unambiguous(uri)).query == make_url(uri).query


@pytest.mark.parametrize(
    "uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x.db?uri=true", "http://h/x.db", ""]
)
def test_a_uri_of_no_file_has_no_path_and_is_unchanged(uri: str) -> None:
    assert sqlite_path(uri) is None
    assert unambiguous(uri) == uri


def test_a_relative_path_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///x/y.db") == tmp_path / "x/y.db"
    assert sqlite_uri("x/y.db") == f"sqlite:///{tmp_path}/x/y.db"


def test_a_path_out_of_a_linked_folder_resolves_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    assert sqlite_path(sqlite_uri(tmp_path / "link" / ".." / "mlflow.db")) == tmp_path / "far" / "mlflow.db"


@pytest.mark.parametrize("name", FOLDERS, ids=ascii)
def test_a_folder_of_any_name_holds_the_store_and_all_its_files(
    name: str, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    out.rename(place / name)
    monkeypatch.chdir(place)
    for folder in (Path(name), place / name):
        uri = tracking.default_uri(folder)
        tracker = Tracker(uri, out=folder)
        location = tracker._client.get_experiment(tracker._find_or_create_experiment("mine")).artifact_location
        assert local_path(location) == place / name / "artifacts" / "mine"
        with pytest.raises(ReportError, match="'mine': expected at least one run, got none"):
            load("mine", uri)
    assert os.listdir(place) == [name]
    assert os.listdir(place / name) == ["mlflow.db"]


def test_a_folder_whose_name_mlflow_cannot_write_down_is_refused(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"no utf-8 \xff")
    with pytest.raises(
        TrackingError, match=r"^--out: expected a folder whose name is UTF-8, got '.*\\udcff'\. [^\n]*$"
    ):
        Tracker(tracking.default_uri(out), out=out)
    assert not out.exists()


def test_the_database_is_created_in_a_folder_of_any_name(tmp_path: Path) -> None:
    out = tmp_path / "place" / "100% why?"
    Tracker(tracking.default_uri(out), out=out)
    assert os.listdir(tmp_path / "place") == ["100% why?"]
    assert os.listdir(out) == ["mlflow.db"]


def test_the_commands_name_the_store_alike(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = out.rename(out.parent / "a%20b ?")
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda program, arguments: started.append(arguments))
    with pytest.raises(SystemExit):
        main(["ui", "--out", str(there), "--port", "5999"])
    assert sqlite_path(started[0][started[0].index("--backend-store-uri") + 1]) == there / "mlflow.db"
    with pytest.raises(SystemExit, match="2"):
        main(["report", "--from", str(there)])
    assert "expected one in the store, got none" in capsys.readouterr().err


def test_reports_take_a_path_in_place_of_a_uri(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("results", "results/mlflow.db", str(out)):
        assert checked_uri(place) == sqlite_uri(out / "mlflow.db")
    for place in ("no such", "results/other.db"):
        with pytest.raises(ReportError, match=rf"expected a database, got no file at '{tmp_path}/{place}'\. Run a"):
            checked_uri(place)


def test_a_folder_without_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(ReportError, match=rf"expected a results folder, got '{tmp_path}' without mlflow\.db\. Run a"):
        load("mine", tmp_path)
