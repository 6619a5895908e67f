"""Real outages: a locked SQLite file, a full disk, a server that is down or hangs, PostgreSQL restarted."""

import http.server
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import mlflow.store.db.utils
import pytest
import sqlalchemy.sql
from outages import Said, check, play, replay, small_grid
from stores_that_fail import Lock, Service, mlflow_server, postgres, wait_for

from harness.grid.load import Grid
from harness.sweep.store_thread import StoreThread
from harness.tracking import StoreUnavailableError, Tracker, TrackingError, databases


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite waits 0.2 s for a lock, not MLflow's 20; a server has 8 s to answer, not 20."""

    def text(statement: str) -> object:
        return sqlalchemy.sql.text(statement.replace("busy_timeout = 20000", "busy_timeout = 200"))

    monkeypatch.setattr(mlflow.store.db.utils, "sql", SimpleNamespace(text=text))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return small_grid(tmp_path, seeds=4)


def sweep(grid: Grid, out: Path, uri: str, **at: Callable[[], object]) -> Said:
    """Play a sweep with the store's own thread. `away` is called early; `back`, late, once the outage was reported."""
    said = Said()

    def before(number: int) -> None:
        if number == 7 and "away" in at:
            at["away"]()
        if number == 20 and "back" in at:
            wait_for(said.outages)
            at["back"]()

    play(grid, out, lambda: Tracker(uri, out=out), kind=StoreThread, before=before, said=said)
    assert said.outages() == 1, said.lines
    return said


def assert_caught_up(grid: Grid, out: Path, uri: str, said: Said) -> None:
    """The end of the sweep replayed; nothing is left to do."""
    assert any("answers again" in line for line in said.lines), said.lines
    check(grid, out, uri)
    assert replay(grid, out, uri) == 0
    check(grid, out, uri)


def assert_replayed_later(grid: Grid, out: Path, uri: str) -> None:
    assert replay(grid, out, uri) > 0
    check(grid, out, uri)
    assert replay(grid, out, uri) == 0
    check(grid, out, uri)


@pytest.mark.usefixtures("impatient")
def test_a_database_locked_in_mid_sweep(grid: Grid, out: Path) -> None:
    uri, lock = f"sqlite:///{out / 'mlflow.db'}", Lock(out / "mlflow.db")
    said = sweep(grid, out, uri, away=lock.take, back=lock.release)
    assert "database is locked" in said.lines[0]
    assert_caught_up(grid, out, uri, said)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("known", [True, False])
def test_a_database_locked_before_the_start(grid: Grid, out: Path, known: bool) -> None:
    """Also one that this process has never connected to."""
    uri, lock = f"sqlite:///{out / 'mlflow.db'}?timeout=0.2", Lock(out / "mlflow.db")
    if known:
        Tracker(uri, out=out)
    lock.take()
    begun = time.monotonic()
    said = sweep(grid, out, uri, back=lock.release)
    assert time.monotonic() - begun < 30
    assert_caught_up(grid, out, uri, said)


@pytest.mark.usefixtures("impatient")
def test_a_database_locked_until_after_the_end(grid: Grid, out: Path) -> None:
    uri, lock = f"sqlite:///{out / 'mlflow.db'}", Lock(out / "mlflow.db")
    said = sweep(grid, out, uri, away=lock.take)
    assert len(said.lines) == 1
    lock.release()
    assert_replayed_later(grid, out, uri)


@pytest.fixture
def server(out: Path) -> Iterator[tuple[Service, str]]:
    service, uri = mlflow_server(out)
    service.start()
    yield service, uri
    service.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_server_stopped_and_started_in_mid_sweep(grid: Grid, out: Path, server: tuple[Service, str]) -> None:
    service, uri = server
    said = sweep(grid, out, uri, away=service.stop, back=service.start)
    assert_caught_up(grid, out, uri, said)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_server_down_at_the_start(grid: Grid, out: Path, server: tuple[Service, str]) -> None:
    service, uri = server
    service.stop()
    said = sweep(grid, out, uri, back=service.start)
    assert_caught_up(grid, out, uri, said)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_server_down_until_after_the_end(grid: Grid, out: Path, server: tuple[Service, str]) -> None:
    service, uri = server
    sweep(grid, out, uri, away=service.stop)
    service.start()
    assert_replayed_later(grid, out, uri)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs_and_then_answers_stores_nothing_twice(
    grid: Grid, out: Path, server: tuple[Service, str]
) -> None:
    """What was asked twice and never answered is there in the end, but once."""
    service, uri = server
    said = sweep(grid, out, uri, away=lambda: service.tell(signal.SIGSTOP), back=lambda: service.tell(signal.SIGCONT))
    assert_caught_up(grid, out, uri, said)


def test_a_server_that_never_answers_does_not_block_the_sweep(
    grid: Grid, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.contract.web_server.ANSWER_S", 1.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        begun = time.monotonic()
        said = sweep(grid, out, f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert time.monotonic() - begun < 10
    assert "no answer within 1 s" in said.lines[0]


@pytest.mark.slow
def test_a_server_that_falls_silent_delays_the_end_by_a_minute_at_most(
    grid: Grid, out: Path, server: tuple[Service, str]
) -> None:
    """With the times that a user gets."""
    service, uri = server
    begun = time.monotonic()
    sweep(grid, out, uri, away=lambda: service.tell(signal.SIGSTOP))
    assert time.monotonic() - begun < 75
    service.tell(signal.SIGCONT)
    assert_replayed_later(grid, out, uri)


needs_postgres = pytest.mark.skipif(
    shutil.which("initdb") is None or find_spec("psycopg2") is None,
    reason="needs PostgreSQL's initdb and postgres on PATH, and psycopg2",
)


@needs_postgres
@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_postgres_shut_down_in_mid_sweep(grid: Grid, out: Path) -> None:
    with postgres() as (service, uri):
        said = sweep(grid, out, uri, away=lambda: service.stop(signal.SIGQUIT), back=service.start)
        assert_caught_up(grid, out, uri, said)


@needs_postgres
@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_postgres_down_at_the_start(grid: Grid, out: Path) -> None:
    with postgres() as (service, uri):
        service.stop(signal.SIGQUIT)
        begun = time.monotonic()
        said = sweep(grid, out, uri)
        assert time.monotonic() - begun < 15
        assert "Connection refused" in said.lines[0]
        service.start()
        assert_replayed_later(grid, out, uri)


@needs_postgres
@pytest.mark.parametrize("wrong", ["database", "user"])
def test_postgres_that_refuses_a_connection_is_no_outage(out: Path, wrong: str) -> None:
    with postgres() as (_, uri):
        uri = uri.replace("/postgres", "/none") if wrong == "database" else uri.replace("harness@", "nobody@")
        begun = time.monotonic()
        with pytest.raises(TrackingError, match=r"^tracking: [^\n]* does not exist. Check name, password[^\n]*$"):
            Tracker(uri, out=out)
        assert time.monotonic() - begun < 10


@pytest.mark.skipif(find_spec("psycopg2") is None, reason="needs psycopg2")
def test_postgres_that_is_silent_is_an_outage_after_seconds(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "CONNECT_S", 2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="timeout expired"):
            Tracker(f"postgresql+psycopg2://u:p@127.0.0.1:{deaf.getsockname()[1]}/d", out=out)
        assert time.monotonic() - begun < 10


def test_connections_to_a_database_server_have_a_limit() -> None:
    limited = "postgresql+psycopg2://u:p%2Fa@h/d?connect_timeout=10"
    assert databases.with_timeout("postgresql+psycopg2://u:p/a@h/d") == limited
    assert databases.with_timeout("postgresql://h/d?connect_timeout=3") == "postgresql://h/d?connect_timeout=3"
    assert databases.with_timeout("postgresql+pg8000://h/d") == "postgresql+pg8000://h/d"  # it takes no such setting
    assert databases.with_timeout("sqlite:////a/b.db") == "sqlite:////a/b.db"


@pytest.mark.parametrize("code", [302, 401, 403, 404, 503])
def test_a_server_that_refuses_is_no_outage(out: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else code)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(
            StoreUnavailableError if code == 503 else TrackingError, match="Start it" if code == 503 else "Check name"
        ):
            Tracker(f"http://127.0.0.1:{server.server_address[1]}", out=out)
        server.shutdown()
        thread.join()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root, and a machine that lets it")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            return


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("artifacts", [True, False])
def test_a_disk_that_runs_full_in_mid_sweep(grid: Grid, out: Path, disk: Path, artifacts: bool) -> None:
    """The database's disk, with the artifacts on it or not."""
    shutil.move(out / "mlflow.db", disk / "mlflow.db")
    uri, there = f"sqlite:///{disk / 'mlflow.db'}", disk if artifacts else out
    said = Said()

    def before(number: int) -> None:
        if number == 7:
            fill(disk)
        if number == 20:
            wait_for(said.outages)
            (disk / "ballast").unlink()

    play(grid, out, lambda: Tracker(uri, out=there), kind=StoreThread, before=before, said=said)
    assert said.outages() == 1
    assert "full" in said.lines[0] or "No space left" in said.lines[0]
    assert_caught_up(grid, out, uri, said)
