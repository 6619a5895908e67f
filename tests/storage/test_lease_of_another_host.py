"""The lease of another host that shares the disk; what tells hosts apart is faked."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest
from leases import leave_behind, line, process, refusal, tell

from harness.storage import lease
from harness.storage.lease import EXPIRES_S, Lease, holder


def test_a_foreign_lease_is_honoured_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=EXPIRES_S - 20)
    message = refusal(tmp_path)
    assert "got one (other-host, process 4711, since 2026-11-25 10:12:03, last heartbeat 4" in message
    assert message.endswith(" s ago). Wait for it, or choose another --out.")
    found = holder(tmp_path)
    assert found is not None
    assert (found.host, found.expired) == ("other-host", False)


@pytest.mark.parametrize("age_s", [EXPIRES_S + 1, 7200, -7200])
def test_a_foreign_lease_without_heartbeats_is_taken_over_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float
) -> None:
    monkeypatch.setattr(lease, "SETTLE_S", 0.01)
    leave_behind(tmp_path, age_s)
    found = holder(tmp_path)
    assert found is not None
    assert found.expired
    with Lease(tmp_path) as held:
        assert "taken over from another driver (other-host, process 4711, since" in held.note
        assert (now := holder(tmp_path)) is not None
        assert now.pid == os.getpid()


def test_the_clock_of_this_host_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(tmp_path, age_s=5)
    real = time.time()
    for skew_s in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda skew_s=skew_s: real + skew_s)
        assert "other-host" in refusal(tmp_path)


TAKER = """
import errno, fcntl, sys
from pathlib import Path
from harness.storage import lease
def flock(*_): raise OSError(errno.ENOLCK, "no locks")
fcntl.flock, lease.SETTLE_S, host = flock, 0.2, sys.argv[1]
lease.boot_id = lambda: host
print("ready", flush=True)
for folder in map(str.strip, sys.stdin):
    try:
        with lease.Lease(Path(folder)) as held:
            print("won", flush=True)
            sys.stdin.readline()
            held.check()
    except lease.LeaseError as refused:
        assert "got one (" in str(refused), refused
        print("refused", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
"""


@pytest.mark.parametrize("left", ["expired lease", "nothing", "expired claim", "garbage"])
def test_of_hosts_that_start_at_the_same_time_exactly_one_wins(tmp_path: Path, left: str) -> None:
    with process(TAKER, "a") as a, process(TAKER, "b") as b, process(TAKER, "c") as c:
        takers = (a, b, c)
        assert [line(taker) for taker in takers] == ["ready"] * 3
        for turn in range(12):
            folder = tmp_path / str(turn)
            folder.mkdir()
            if left != "nothing":
                path = leave_behind(folder, age_s=100)
                if left == "expired claim":
                    path.rename(folder / "driver.claim")
                if left == "garbage":
                    path.write_bytes(b"garbage")
                    os.utime(path, (0, 0))
            for taker in takers:
                tell(taker, str(folder))
            outcomes = sorted(line(taker) for taker in takers)
            assert outcomes == ["refused", "refused", "won"], turn
            for taker in takers:
                tell(taker, "next")
            assert [line(taker) for taker in takers] == ["done"] * 3
            assert {entry.name for entry in folder.iterdir()} == {"driver.lock"}


@pytest.mark.usefixtures("no_locks")
def test_the_claim_of_a_driver_that_is_starting_is_honoured(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=1).rename(tmp_path / "driver.claim")
    assert "which is starting)" in refusal(tmp_path)
    assert not (tmp_path / "driver.json").exists()


def test_a_lease_is_read_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """`harness status` works in a folder that it cannot write to."""
    leave_behind(tmp_path, age_s=5)
    os.chmod(tmp_path, stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    try:
        found = holder(tmp_path)
    finally:
        os.chmod(tmp_path, stat.S_IRWXU)
    assert found is not None
    assert 4 < found.age_s < 60


def test_clocks_are_compared_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> float:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    leave_behind(tmp_path, age_s=5)
    monkeypatch.setattr(lease, "_file_time", read_only)
    found = holder(tmp_path)
    assert found is not None
    assert 4 < found.age_s < 60
