"""A sealed file is read as it was written, or not at all, whatever happens to it or to its writer."""

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import atomic_file
from harness.storage import checksummed_file
from harness.storage.checksummed_file import DamagedError

PREAMBLE = "import sys\nfrom pathlib import Path\nfrom harness.storage import checksummed_file\n"
CONTENT = b'{"a": 1}\n\x00\xff'


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs the code with these arguments; it says "ready" once it has begun."""
    command = [
        sys.executable,
        "-c",
        f"import sys\nfrom pathlib import Path\nfrom harness.storage import checksummed_file\n{code}",
    ]
    process = subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@given(st.binary(max_size=200))
def test_content_is_read_back_as_it_was_written(content: bytes) -> None:
    assert checksummed_file.verify(checksummed_file.add_checksum(content), "here") == content


@pytest.mark.parametrize("content", [b"", CONTENT, b"x" * 3_000_000], ids=len)
def test_a_file_is_read_as_it_was_written_and_replaced_as_a_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    checksummed_file.write(path, b"former")
    checksummed_file.write(path, content)
    assert checksummed_file.read(path) == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_the_header_is_one_line_that_sha256sum_would_agree_with(tmp_path: Path) -> None:
    checksummed_file.write(tmp_path / "state", b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (tmp_path / "state").read_bytes() == f"harness-sealed 1 {expected}\nabc".encode()


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    whole, path = checksummed_file.add_checksum(CONTENT), tmp_path / "state"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match=rf"^{path}: expected [^\n]+, got [^\n]+\.$"):
            checksummed_file.read(path)


def test_every_flipped_bit_is_seen() -> None:
    whole = checksummed_file.add_checksum(CONTENT)
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            with pytest.raises(DamagedError):
                checksummed_file.verify(bytes(flipped), "here")


@given(st.binary(max_size=200))
def test_a_file_without_a_valid_checksum_is_refused(content: bytes) -> None:
    for text in (
        content,
        checksummed_file.add_checksum(b"") + b"\0" + content,
        b"\n" + checksummed_file.add_checksum(content),
    ):
        with pytest.raises(DamagedError):
            checksummed_file.verify(text, "here")


def test_no_file_is_a_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checksummed_file.read(tmp_path / "state")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_previous_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "state"
    checksummed_file.write(path, CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            checksummed_file.write(path, b"newer")
    assert checksummed_file.read(path) == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_the_system_cuts_short_leaves_the_previous_file_alone(tmp_path: Path) -> None:
    """The limit on a file's size is what a full disk is to a process: some bytes are written, then an error comes."""
    path = tmp_path / "state"
    checksummed_file.write(path, CONTENT)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
print("ready", flush=True)
try:
    checksummed_file.write(Path(sys.argv[1]), b"x" * 1_000_000)
except OSError as error:
    print(error.strerror)
"""
    process = start(code, path)
    assert process.stdout is not None
    assert process.stdout.read() == "File too large\n"  # communicate() would miss what came together with "ready"
    assert process.wait(timeout=60) == 0
    assert checksummed_file.read(path) == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_none_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("missing", "file"):
        with pytest.raises(OSError, match=folder):
            checksummed_file.write(tmp_path / folder / "state", CONTENT)


def test_a_file_system_that_cannot_sync_folders_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    checksummed_file.write(tmp_path / "state", CONTENT)
    assert checksummed_file.read(tmp_path / "state") == CONTENT


WRITER = """
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    number += 2
    checksummed_file.write(Path(sys.argv[1]), (str(number) + " ").encode() * 20_000)
"""


def check_whole(content: bytes) -> int:
    """What WRITER writes is one number, many times. Return it."""
    words = content.split()
    assert len(words) == 20_000
    assert len(set(words)) == 1
    return int(words[0])


def test_a_killed_writer_never_leaves_what_was_never_written(tmp_path: Path) -> None:
    path, random_s = tmp_path / "state", random.Random(0)  # noqa: S311 no secret
    newest = 0
    checksummed_file.write(path, b"0 " * 20_000)
    for _ in range(12):
        writer = start(WRITER, path, newest)
        time.sleep(random_s.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        now = check_whole(checksummed_file.read(path))
        assert now >= newest
        newest = now
    assert newest > 0
    atomic_file.remove_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_the_same_time_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "state"
    writers = [start(WRITER, path, first) for first in (0, 1)]
    seen: set[int] = set()
    try:
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            if path.exists():
                seen.add(check_whole(checksummed_file.read(path)) % 2)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert seen == {0, 1}


def test_damaged_files_are_set_aside_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "frozen.json"
    for number in (1, 2, 3):
        path.write_bytes(b"garbage %d" % number)
        assert checksummed_file.rename_damaged(path) == tmp_path / f"frozen.json.damaged-{number}"
    assert not path.exists()
    assert (tmp_path / "frozen.json.damaged-2").read_bytes() == b"garbage 2"
