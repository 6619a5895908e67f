"""Drivers in processes of their own, and leases that another host left behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.storage import checksummed_file
from harness.storage.lease import Lease, LeaseError

HOLD = """
import sys, time
from pathlib import Path
from harness.storage import lease
with lease.Lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
OTHER = {"id": "f00d", "host": "other-host", "boot": "other-boot", "pid": 4711, "started": "2026-11-25 10:12:03"}


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process with pipes, killed at the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease of the folder."""
    with process(HOLD, folder) as started:
        assert line(started) == "held"
        yield started


def line(of: subprocess.Popen[str]) -> str:
    assert of.stdout is not None
    return of.stdout.readline().strip()


def tell(to: subprocess.Popen[str], text: str) -> None:
    assert to.stdin is not None
    to.stdin.write(text + "\n")
    to.stdin.flush()


def leave_behind(folder: Path, age_s: float, **changes: Any) -> Path:
    """Write a lease of another host whose last heartbeat is that old."""
    path = folder / "driver.json"
    checksummed_file.write(path, json.dumps(OTHER | changes).encode())
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(LeaseError) as refused, Lease(folder):
        pass
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}: expected ")
    return message


def lost_within(held: Lease, limit_s: float) -> str:
    deadline = time.monotonic() + limit_s
    while held.lost is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held.lost is not None
    return held.lost
