"""What the tests of leases and of plans share."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from plans import Load

from estimators import REGISTRY
from harness.grid.load import Grid, load_grid
from harness.storage import lease


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, like some that hosts share."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats in hundredths of a second."""
    for name, value in (("HEARTBEAT_S", 0.02), ("EXPIRES_S", 0.3), ("SETTLE_S", 0.05)):
        monkeypatch.setattr(lease, name, value)


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def load_text(text: str, registry: Any = REGISTRY) -> Grid:
        path = tmp_path / "grid.yaml"
        path.write_text(text)
        return load_grid(path, registry)

    return load_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    return folder
