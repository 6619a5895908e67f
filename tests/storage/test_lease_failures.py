"""Leases that are damaged, and folders in which none can be written."""

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leases import OTHER, refusal

from harness.errors import UserError
from harness.storage import checksummed_file, lease
from harness.storage.lease import Lease, LeaseError, holder


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
def test_a_damaged_lease_is_honoured_while_fresh_and_then_taken_over(
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


def test_a_lock_file_with_garbage_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "driver.lock").open("wb") as lock:
        lock.write(b"\xff\x00two\nlines\n" * 100)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "two lines" in refusal(tmp_path)


def test_a_lease_error_is_shown_as_one_line() -> None:
    assert issubclass(LeaseError, UserError)
