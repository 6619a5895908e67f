"""The stored files of a run are read from its own folder or server, and from nowhere else."""

import os
import time
from unittest.mock import Mock

import pytest
from hostile_servers import FailingServer, served, stored_run

from reports.contract import mlflow_environment
from reports.store import artifacts
from reports.store.artifacts import Artifacts


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file:{path}", "FILE://{path}", "file://host{path}"])
def test_a_server_cannot_name_a_file_of_this_machine(secret, tmp_path, form):
    read = Artifacts("http://127.0.0.1:5000", tmp_path)
    assert read.content(stored_run(form.format(path=secret)), "history.json") == b""
    (note,) = read.notes
    assert note.startswith(
        "my run: the stored file history.json is not used: the server says that it lies on this mach"
    )
    local = Artifacts(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert local.content(stored_run(str(secret)), "history.json") == b'[{"epoch": 1}]'
    assert local.notes == ()


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/x",
        "ftp://there/x",
        "mlflow-artifacts://elsewhere:80/x",
        "runs:/abc",
        "file+x:///etc",
        "x://[",
    ],
)
def test_a_server_cannot_send_the_reader_elsewhere(tmp_path, place):
    read = Artifacts("http://127.0.0.1:5000", tmp_path)
    assert read.content(stored_run(place), "history.json") == b""
    assert len(read.notes) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_link_does_not_lead_out_of_a_run(secret, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "history.json").symlink_to(secret / "history.json")
    (folder / "images").symlink_to(secret)
    os.mkfifo(folder / "plan.json")
    (folder / "grid.yaml").symlink_to("grid.yaml")
    read = Artifacts(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    run = stored_run(str(folder))
    names = ("history.json", "images/history.json", "plan.json", "grid.yaml", "absent")
    assert [read.content(run, name) for name in names] == [b""] * 5
    assert [note.partition("not used: ")[2] for note in read.notes] == ["a link leads out of the run's folder."] * 2
    assert Artifacts("sqlite:///x", tmp_path).content(stored_run("/\x00"), "a") == b""


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(11))
    read = Artifacts("sqlite:///x", tmp_path)
    assert [len(read.content(stored_run(str(tmp_path)), name)) for name in "ab"] == [10, 0]
    assert read.notes == ("my run: the stored file b is not used: it has more than 10 bytes.",)


def test_a_percent_sign_in_the_name_of_a_folder_is_decoded_once(tmp_path):
    folder = tmp_path / "100%25 mine"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    assert Artifacts("sqlite:///x", tmp_path).content(stored_run(folder.as_uri()), "a") == b"x"


@pytest.mark.parametrize("code", [503, 404, 500])
def test_a_server_without_an_answer_is_asked_for_one_file(tmp_path, monkeypatch, code):
    """A server that only lacks the file is asked for the next one too."""
    mlflow_environment.prepare()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(FailingServer, "code", code)
    monkeypatch.setattr(FailingServer, "asked", [], raising=False)
    with served(FailingServer) as uri:
        read = Artifacts(uri, tmp_path)
        run = stored_run("mlflow-artifacts:/1/r/artifacts", **{artifacts.TAG_CHECKSUMS: '{"a": "0", "b": "0"}'})
        begun = time.monotonic()
        assert [read.content(run, name) for name in "ab"] == [b"", b""]
        assert time.monotonic() - begun < 10
    asked_for_second = any("b" in path.rpartition("artifacts/1/r/artifacts")[2] for path in FailingServer.asked)
    if code == 503:
        (note,) = read.notes
        assert note.startswith("Stored files are missing: the server did not answer when it was asked for a (API")
        assert not asked_for_second
    else:
        assert len(read.notes) == 2
        assert asked_for_second


def test_errors_of_an_object_stores_library_are_reported_once(tmp_path, monkeypatch):
    class NoCredentialsError(Exception):
        """As boto3 raises it."""

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", Mock(side_effect=NoCredentialsError("none\x1b here")))
    read = Artifacts("http://127.0.0.1:5000", tmp_path)
    assert [read.content(stored_run("s3://bucket/r"), name) for name in "ab"] == [b"", b""]
    (note,) = read.notes
    assert "s3://bucket did not answer when it was asked for a (none\\x1b here)" in note
