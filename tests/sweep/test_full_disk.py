"""A disk that runs full, or becomes read-only, in the middle of a sweep: a clear error, nothing stored lost."""

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from killed_sweeps import GRID, assert_whole, command, environment, journal_of, run_quietly, start, workers_of

from harness.events import EpochDone, Record
from harness.storage.journal import AppendError, Journal

SIZE_MB = 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of some MB; skipped where it cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(options, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line_and_the_sweep_can_be_resumed(
    tmp_path: Path, out: Path, small_disk: Path
) -> None:
    (tmp_path / "killed.yaml").write_text(GRID.format(epochs=80, seeds=1))
    reference = tmp_path / "reference"
    run_quietly(tmp_path, reference)
    there = small_disk / "out"
    there.mkdir()
    (there / "mlflow.db").write_bytes((out / "mlflow.db").read_bytes())
    process = start(tmp_path, there)
    fill(small_disk)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, output + errors
    assert "Traceback" not in output + errors
    assert re.search(r"journal.jsonl: a record could not be written \(No space left on device", errors)
    assert len(errors.strip().splitlines()) == 1
    before = journal_of(there)
    assert sum(event["kind"] == "epoch" for event in before) >= 10  # every line of it is whole

    again = subprocess.run(
        command(tmp_path, there), capture_output=True, text=True, check=False, env=environment(), timeout=120
    )
    assert again.returncode in (1, 2)  # it cannot even begin
    assert "No space left on device" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1, again.stderr

    os.unlink(small_disk / "ballast")
    run_quietly(tmp_path, there)
    assert journal_of(there)[: len(before)] == before
    assert_whole(there, reference, 80)


@pytest.mark.slow
def test_a_read_only_disk_is_one_clear_line_and_the_sweep_can_be_resumed(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "killed.yaml").write_text(GRID.format(epochs=80, seeds=1))
    there = small_disk / "out"
    process = start(tmp_path, there)
    orphans = workers_of(process.pid)
    process.kill()  # no disk turns read-only in peace while files are open on it
    process.communicate()
    assert not psutil.wait_procs(orphans, timeout=20)[1]
    before = (there / "killed" / "journal.jsonl").read_bytes()
    for mode, code in (("ro", 2), ("rw", 0)):
        subprocess.run(["mount", "-o", f"remount,{mode}", str(small_disk)], check=True, capture_output=True)
        done = subprocess.run(
            command(tmp_path, there), capture_output=True, text=True, check=False, env=environment(), timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        if code:
            assert re.search("expected a folder to write to, got: Read-only file system", done.stderr)
            assert len(done.stderr.strip().splitlines()) == 1
            assert (there / "killed" / "journal.jsonl").read_bytes() == before
    whole = before[: before.rfind(b"\n") + 1]
    assert (there / "killed" / "journal.jsonl").read_bytes().startswith(whole)
    assert "3 finished." in done.stdout


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("written", [0, 1, 40])
def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path, code: int, written: int) -> None:
    event = EpochDone(1, 10, 0.5, {"train/loss": 1.25})
    with Journal(tmp_path) as journal:
        journal.append(Record("a", 1, event))
        size = journal.path.stat().st_size
        whole = journal._file

        class Failing:
            """Takes some bytes of what it is given, then nothing more."""

            def write(self, content: bytes) -> int:
                if written and journal.path.stat().st_size == size:
                    return whole.write(content[:written])
                raise OSError(code, os.strerror(code))

            def fileno(self) -> int:
                return whole.fileno()

        journal._file = Failing()  # type: ignore[assignment]
        with pytest.raises(AppendError, match=f"a record could not be written \\({os.strerror(code)}"):
            journal.append(Record("a", 2, event))
        journal._file = whole
        assert journal.path.stat().st_size == size
        journal.append(Record("a", 3, event))
    assert [record.time_ms for record in Journal(tmp_path).read()] == [1, 3]
