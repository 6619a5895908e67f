"""One driver a sweep, among processes and among hosts that share a disk; what tells hosts apart is faked."""

import errno
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.storage import checksummed_file, lease
from harness.storage.lease import EXPIRES_S, Lease, LeaseError, holder

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


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no locks, as some that hosts share."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats in hundredths of a second."""
    for name, value in (("HEARTBEAT_S", 0.02), ("EXPIRES_S", 0.3), ("SETTLE_S", 0.05)):
        monkeypatch.setattr(lease, name, value)


def lost_within(held: Lease, limit_s: float) -> str:
    deadline = time.monotonic() + limit_s
    while held.lost is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held.lost is not None
    return held.lost


def test_a_lease_is_there_while_it_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with Lease(tmp_path) as held:
        found = holder(tmp_path)
        assert found is not None
        assert (found.pid, found.expired, held.note, held.lost) == (os.getpid(), False, "", None)
        assert abs(found.age_s) < 5
        held.check()
    assert holder(tmp_path) is None
    assert {entry.name for entry in tmp_path.iterdir()} == {"driver.lock"}
    with Lease(tmp_path):
        pass


def test_a_second_driver_of_this_host_is_told_who_the_first_is(tmp_path: Path) -> None:
    with driver(tmp_path) as first:
        rule = r"expected no other driver on this sweep, got one \(\S+, process (\d+), since [-\d]+ [:\d]+, "
        assert (found := re.search(rule + r"last heartbeat [\d.]+ s ago\)", refusal(tmp_path)))
        assert int(found[1]) == first.pid
        seen = holder(tmp_path)
        assert seen is not None
        assert seen.pid == first.pid
        tell(first, "")
        assert first.stdin is not None
        first.stdin.close()
        first.wait()
    with Lease(tmp_path):
        pass


def test_a_second_lease_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with Lease(tmp_path):
        assert f"process {os.getpid()}" in refusal(tmp_path)


def test_the_lease_of_a_killed_driver_of_this_host_is_taken_at_once(tmp_path: Path) -> None:
    with driver(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (tmp_path / "driver.json").exists()
    assert holder(tmp_path) is None
    with Lease(tmp_path) as held:
        assert held.note == ""


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_lease_alone_refuses_until_it_expires(tmp_path: Path) -> None:
    with driver(tmp_path) as first:
        assert f"process {first.pid}" in refusal(tmp_path)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert f"process {first.pid}" in refusal(tmp_path)
    os.utime(tmp_path / "driver.json", (0, 0))
    with Lease(tmp_path):
        pass


def test_another_host_is_believed_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=EXPIRES_S - 20)
    message = refusal(tmp_path)
    assert "got one (other-host, process 4711, since 2026-11-25 10:12:03, last heartbeat 4" in message
    assert message.endswith(" s ago). Wait for it, or choose another --out.")
    found = holder(tmp_path)
    assert found is not None
    assert (found.host, found.expired) == ("other-host", False)


@pytest.mark.parametrize("age_s", [EXPIRES_S + 1, 7200, -7200])
def test_another_host_that_was_silent_is_taken_over_with_a_note(
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


@pytest.mark.usefixtures("fast")
def test_heartbeats_keep_a_lease_alive(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        os.utime(tmp_path / "driver.json", (0, 0))
        time.sleep(0.5)
        assert (found := holder(tmp_path)) is not None
        assert abs(found.age_s) < 10
        assert held.lost is None


@pytest.mark.usefixtures("fast")
def test_a_stolen_lease_is_noticed_and_left_to_its_thief(tmp_path: Path) -> None:
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
    """Somebody else took it over, ended, and released it."""
    with Lease(tmp_path) as held:
        (tmp_path / "driver.json").unlink()
        assert "removed" in lost_within(held, 10)


@pytest.mark.usefixtures("fast")
def test_who_cannot_write_a_heartbeat_for_too_long_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def utime(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Lease(tmp_path) as held, monkeypatch.context() as patch:
        patch.setattr(os, "utime", utime)
        time.sleep(0.1)
        assert held.lost is None
        assert "Input/output error" in lost_within(held, 10)


def test_a_driver_that_was_suspended_notices_at_its_next_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its thread has had the time to: that would be up to HEARTBEAT_S later."""
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
def test_a_driver_that_is_starting_is_believed(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=1).rename(tmp_path / "driver.claim")
    assert "which is starting)" in refusal(tmp_path)
    assert not (tmp_path / "driver.json").exists()


def test_a_lease_that_could_not_be_written_does_not_block_the_next_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in refusal(tmp_path)
    with Lease(tmp_path) as held:
        held.check()


def test_a_start_removes_partial_files_of_the_sweep_and_no_others(tmp_path: Path) -> None:
    sweep, elsewhere = tmp_path / "sweep", tmp_path / "elsewhere"
    mine = [sweep / ".a.partial", sweep / "models" / ".b.partial"]
    others = [sweep / "another sweep" / ".c.partial", elsewhere / ".d.partial"]
    for path in (*mine, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (sweep / "images").symlink_to(elsewhere)
    with Lease(sweep):
        assert [path.exists() for path in (*mine, *others)] == [False, False, True, True]


def test_a_driver_of_this_host_that_was_killed_while_it_started_does_not_count(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=0, boot=lease.boot_id()).rename(tmp_path / "driver.claim")
    with Lease(tmp_path) as held:
        held.check()


@pytest.mark.parametrize("call", ["open", "replace"])
def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        target: Any = Path if call == "open" else os
        patch.setattr(target, call, read_only)
        assert "expected a folder to write to, got: Read-only file system. Choose another" in refusal(tmp_path)
    assert not {"driver.json", "driver.claim"} & {entry.name for entry in tmp_path.iterdir()}
    assert "No such file" in refusal(tmp_path / "missing")


def test_a_folder_of_somebody_else_is_read_all_the_same(tmp_path: Path) -> None:
    """What `harness status` needs does not take a folder that can be written to."""
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


WHOLE = checksummed_file.add_checksum(json.dumps(OTHER).encode())
damaged = st.one_of(
    st.binary(max_size=100),
    st.integers(0, len(WHOLE) - 1).map(lambda length: WHOLE[:length]),
    st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)).map(
        lambda at: WHOLE[: at[0]] + bytes([WHOLE[at[0]] ^ at[1]]) + WHOLE[at[0] + 1 :]
    ),
    st.sampled_from([b"[]", b"null", b"{}", b"1", b'{"id": 1}', b'{"a": "b"}', b"\xff"]).map(
        checksummed_file.add_checksum
    ),
    st.sampled_from(sorted(OTHER)).map(
        lambda key: checksummed_file.add_checksum(json.dumps(OTHER | {key: None}).encode())
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(damaged)
def test_a_damaged_lease_is_believed_while_fresh_and_then_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    path = tmp_path / "driver.json"
    path.write_bytes(content)
    found = holder(tmp_path)
    assert found is not None
    assert found.id == ""
    assert "got one (unknown: its lease is damaged, last heartbeat" in refusal(tmp_path)
    os.utime(path, (0, 0))
    with Lease(tmp_path) as held:
        assert "unknown: its lease is damaged" in held.note


@pytest.mark.usefixtures("fast")
def test_a_lease_that_is_damaged_while_it_is_held_is_lost_when_others_may_take_it(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        (tmp_path / "driver.json").write_bytes(b"garbage")
        assert "damaged" in lost_within(held, 10)


def test_a_lock_file_with_garbage_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "driver.lock").open("wb") as lock:
        lock.write(b"\xff\x00two\nlines\n" * 100)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "two lines" in refusal(tmp_path)


def test_the_command_line_shows_it_as_one_line() -> None:
    assert issubclass(LeaseError, UserError)
