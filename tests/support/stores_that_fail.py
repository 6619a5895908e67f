"""Stores that a test can take away and give back: a locked SQLite file, an MLflow server, PostgreSQL."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Lock:
    """Another process that holds a SQLite file for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> None:
        command = [sys.executable, "-c", LOCK, str(self.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def release(self) -> None:
        self._process.communicate(timeout=10)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Service:
    """A process group that listens on a port of this machine."""

    def __init__(self, command: Sequence[str], port: int, log: Path, **how: Any) -> None:
        self._command, self._port, self._log, self._how = command, port, log, how
        self._process: subprocess.Popen[bytes] | None = None
        self.answers: Callable[[], bool] = lambda: listens(port)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True, **self._how)
        wait_for(self._is_up, 90)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        return self.answers()

    def tell(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.poll() is None:
            self.tell(number)
            self._process.wait(30)
        wait_for(lambda: not listens(self._port))


def mlflow_server(folder: Path) -> tuple[Service, str]:
    """Return an MLflow server on `folder`/mlflow.db, not started yet, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "served")]
    service = Service(command, port, folder / "server.log", cwd=folder)
    return service, f"http://127.0.0.1:{port}"


def lets_in(uri: str) -> bool:
    """Return whether PostgreSQL takes a connection: it listens before it has recovered from a crash."""
    import psycopg2

    try:
        psycopg2.connect(uri).close()
    except psycopg2.OperationalError:
        return False
    return True


@contextmanager
def postgres() -> Iterator[tuple[Service, str]]:
    """Yield a PostgreSQL that runs, and the URI of its database. It refuses root: then it runs as nobody."""
    user, port = "nobody" if os.getuid() == 0 else None, free_port()
    with TemporaryDirectory(prefix="harness-postgres-") as folder:
        data = Path(folder)
        if user is not None:
            shutil.chown(data, user)
        subprocess.run(
            ["initdb", "-D", data / "pg", "-U", "harness", "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            user=user,
            cwd=data,
        )
        command = ["postgres", "-D", str(data / "pg"), "-p", str(port), "-h", "127.0.0.1", "-k", str(data), "-F"]
        service = Service(command, port, data / "log", user=user, cwd=data)
        address = f"harness@127.0.0.1:{port}/postgres"
        service.answers = lambda: lets_in(f"postgresql://{address}")
        service.start()
        try:
            yield service, f"postgresql+psycopg2://{address}"
        finally:
            service.stop(signal.SIGQUIT)  # PostgreSQL's immediate shutdown
