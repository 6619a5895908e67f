"""Reports and sweeps against a hostile or broken tracking server: its addresses, answers and redirects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_servers import HealthOnlyServer, IntranetServer, LyingServer, NonsenseServer, served

from harness.tracking import (
    STORE_ERRORS,
    StoreUnavailableError,
    Tracker,
    TrackingError,
    errors,
    in_one_line,
)
from reports.contract.text import first_line
from reports.report import build_report
from reports.store.load import ReportError, load

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize("place", ["file://{secret}", "mlflow-artifacts:/1/r/artifacts"])
def test_a_lying_server_makes_a_report_read_and_write_nothing_elsewhere(secret, tmp_path, monkeypatch, place):
    (secret / "plan.json").write_text('[{"run_key": "private"}]')
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(LyingServer, "place", place.format(secret=secret))
    monkeypatch.setattr(LyingServer, "asked", [], raising=False)
    before = sorted(tmp_path.rglob("*"))
    with served(LyingServer) as uri:
        runs = load("demo", uri)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped").exists()  # noqa: S108
    assert list(runs.runs["run_key"]) == ["k"]
    assert runs.history.empty
    assert runs.runs["seed"].isna().all()
    build_report(runs, tmp_path / "report")


@pytest.mark.parametrize("how", ["redirect", "redirect everything", "presigned"])
def test_a_server_cannot_make_a_report_ask_another_one(tmp_path, monkeypatch, how):
    """Also if the environment of the user allows redirects and presigned addresses for another program."""
    monkeypatch.setenv("MLFLOW_ALLOW_HTTP_REDIRECTS", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", str(how == "presigned").lower())
    monkeypatch.setattr(IntranetServer, "asked", [], raising=False)
    monkeypatch.setattr(LyingServer, "asked", [], raising=False)
    monkeypatch.setattr(LyingServer, "place", "mlflow-artifacts:/1/r/artifacts")
    monkeypatch.setattr(LyingServer, "how", how)
    with served(IntranetServer) as elsewhere, served(LyingServer) as uri:
        monkeypatch.setattr(LyingServer, "elsewhere", f"{elsewhere}/latest/meta-data")
        if how == "redirect everything":
            with pytest.raises(ReportError, match=r"^tracking URI: expected an MLflow store[^\n]*$"):
                load("demo", uri)
        else:
            assert "SECRET" not in load("demo", uri).sweeps[0].grid
    assert LyingServer.asked
    assert IntranetServer.asked == []


def test_a_server_cannot_make_a_sweep_write_to_another_one(tmp_path, monkeypatch):
    """The same settings hold in a process that only writes to the store."""
    code = "import os, harness.tracking; print(*(os.environ[name] for name in os.environ if 'MULTIPART' in name or "
    code += "'REDIRECTS' in name))"
    monkeypatch.setenv("MLFLOW_ALLOW_HTTP_REDIRECTS", "true")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["false"] * 3


def test_a_report_waits_no_longer_for_a_server_than_a_sweep(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with pytest.raises(ReportError):
        load("demo", "http://127.0.0.1:9")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"


@pytest.mark.parametrize(
    "answered", [{"runs": "x"}, {"experiments": 3, "runs": [3]}, [], "x", {"runs": [{"info": 1}]}, {"runs": [None]}]
)
def test_a_server_that_answers_nonsense_is_one_line(tmp_path, monkeypatch, answered):
    monkeypatch.setattr(NonsenseServer, "asked", [], raising=False)
    monkeypatch.setattr(NonsenseServer, "answered", answered)
    with served(NonsenseServer) as uri:
        with pytest.raises(ReportError, match=r"^tracking URI: expected an MLflow store, [^\n]*$"):
            load("demo", uri)
        with pytest.raises((*STORE_ERRORS, TrackingError)) as said:
            Tracker(uri, out=tmp_path).open_sweep(name="demo", sweep_id="s", runs=[], tags={}, files={})
        assert "\n" not in in_one_line(said.value)


def test_a_password_in_an_address_is_not_repeated(tmp_path):
    """MLflow's exception has the whole address."""
    with served(HealthOnlyServer) as uri:
        uri = uri.replace("//", "//me:s3%2Fcr@t@")
        with pytest.raises(ReportError, match=r"got 'http://me:\*\*\*@127") as told:
            load("demo", uri)
        with pytest.raises(StoreUnavailableError, match=r"at http://me:\*\*\*@127") as said:
            Tracker(uri, out=tmp_path)
    for error in (told.value, said.value):
        assert "cr@t" not in str(error)
        assert "s3" not in str(error)


@pytest.mark.parametrize(
    "uri", ["http://h:port", "http://127.0.0.1:99999", "http://me:s3/cr@t@h", "http://[", "postgresql://h:port/d"]
)
def test_an_invalid_address_is_one_line(tmp_path, uri):
    with pytest.raises(TrackingError, match=r"^tracking: expected scheme://host:port, [^\n]*$") as said:
        Tracker(uri, out=tmp_path)
    if uri.startswith("http"):
        with pytest.raises(ReportError, match=r"^tracking URI: expected scheme://host:port, [^\n]*$") as told:
            load("demo", uri)
        assert "s3" not in str(told.value)
    assert "s3" not in str(said.value)


def test_a_slash_in_the_password_of_a_database_is_accepted():
    assert errors.scheme_of("postgresql+psycopg2://me:pa/ss@h:1/d") == "postgresql"


def test_what_a_server_says_of_an_outage_does_not_move_the_cursor():
    assert first_line(OSError("\x1b[2J\nmore")) == "\\x1b[2J"
