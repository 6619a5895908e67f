"""One driver of a sweep at a time, among the processes of one host."""

import os
import re
import signal
from pathlib import Path

import pytest
from leases import driver, leave_behind, refusal, tell

from harness.storage import lease
from harness.storage.lease import Lease, holder


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


def test_the_claim_of_a_killed_driver_of_this_host_is_ignored(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=0, boot=lease.boot_id()).rename(tmp_path / "driver.claim")
    with Lease(tmp_path) as held:
        held.check()
