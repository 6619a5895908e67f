"""A driver writes heartbeats while it holds the lease, and stops when it has lost it."""

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest
from leases import HOLD, OTHER, leave_behind, line, lost_within, process, tell

from harness.storage import checksummed_file, lease
from harness.storage.lease import EXPIRES_S, Lease, LeaseError, holder


@pytest.mark.usefixtures("fast")
def test_heartbeats_keep_a_lease_alive(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        os.utime(tmp_path / "driver.json", (0, 0))
        time.sleep(0.5)
        assert (found := holder(tmp_path)) is not None
        assert abs(found.age_s) < 10
        assert held.lost is None


@pytest.mark.usefixtures("fast")
def test_a_lease_taken_by_another_host_is_noticed_and_left_to_it(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        path = leave_behind(tmp_path, age_s=0)
        assert "other-host, process 4711" in lost_within(held, 10)
        with pytest.raises(
            LeaseError, match=r"another driver took over this sweep \(other-host, process 4711"
        ) as stopped:
            held.check()
        assert "\n" not in str(stopped.value)
    assert path.exists()


@pytest.mark.usefixtures("fast")
def test_a_removed_lease_is_lost(tmp_path: Path) -> None:
    """Another driver took it over, ended, and released it."""
    with Lease(tmp_path) as held:
        (tmp_path / "driver.json").unlink()
        assert "removed" in lost_within(held, 10)


@pytest.mark.usefixtures("fast")
def test_a_driver_that_cannot_write_heartbeats_loses_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def utime(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Lease(tmp_path) as held, monkeypatch.context() as patch:
        patch.setattr(os, "utime", utime)
        time.sleep(0.1)
        assert held.lost is None
        assert "Input/output error" in lost_within(held, 10)


def test_a_driver_that_was_suspended_notices_at_its_next_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for its thread, which would notice up to HEARTBEAT_S later."""
    monkeypatch.setattr(lease, "SETTLE_S", 0.01)
    with Lease(tmp_path) as held:
        held.check()
        now = lease._now_s()
        monkeypatch.setattr(lease, "_now_s", lambda: now + 2 * EXPIRES_S)
        held.check()  # nobody took it: it goes on
        leave_behind(tmp_path, age_s=0)
        monkeypatch.setattr(lease, "_now_s", lambda: now + 4 * EXPIRES_S)
        with pytest.raises(LeaseError, match="other-host"):
            held.check()


def test_a_stopped_process_finds_its_lease_taken(tmp_path: Path) -> None:
    """SIGSTOP, a takeover as from another host, SIGCONT."""
    code = (
        HOLD.replace("with lease", "lease.HEARTBEAT_S, lease.EXPIRES_S, lease.SETTLE_S = 0.05, 0.5, 0.05\nwith lease")
        .replace("):", ") as held:")
        .replace("sys.stdin.read()", "sys.stdin.readline(); held.check()")
    )
    with process(code, tmp_path) as first:
        assert line(first) == "held"
        first.send_signal(signal.SIGSTOP)
        time.sleep(0.6)
        leave_behind(tmp_path, age_s=0)
        tell(first, "go")
        first.send_signal(signal.SIGCONT)
        assert first.wait(20) == 1
    assert json.loads(checksummed_file.read(tmp_path / "driver.json")) == OTHER


@pytest.mark.usefixtures("fast")
def test_a_lease_damaged_while_held_is_lost_once_it_expires(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        (tmp_path / "driver.json").write_bytes(b"garbage")
        assert "damaged" in lost_within(held, 10)
