"""The append-only journal of a sweep. Every event is written here before anything else uses it.

A line is `<crc32 of the JSON, 8 hex digits> <record as JSON>`. A last line without a newline was cut off when the
machine stopped, and is dropped. Any other line with a wrong checksum is damage, and is refused. Pictures are separate
files in the folder `images`, named by their SHA-256, so that the journal stays small.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from harness import atomic_file
from harness.errors import UserError
from harness.events import Picture, Record


class JournalError(UserError):
    """The journal cannot be read or written."""


class AppendError(JournalError):
    """The disk refused a record. The sweep stops; once the disk has room, the same command continues it."""

    exit_code = 1


class Journal:
    """The file journal.jsonl of a sweep's folder. Only the driver writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.jsonl"

    def __enter__(self) -> Self:
        self._images = self.folder / "images"
        try:
            self._images.mkdir(parents=True, exist_ok=True)
            self.dropped_bytes = self._drop_torn_line()
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise JournalError(
                f"{self.path}: the journal cannot be opened ({error.strerror}). Fix that, or choose another --out."
            ) from error
        self._size = self._file.tell()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Record) -> None:
        """Write one record, so that it survives the end of this process.

        Raises AppendError if that fails. Nothing of the record is written then, and earlier records are intact.
        """
        text = record.to_json()
        try:
            if isinstance(record.event, Picture):
                text = self._move_picture_out(text, record.event.png)
            self._write(checksummed_line(text))
        except OSError as error:
            raise AppendError(
                f"{self.path}: a record could not be written ({error.strerror}). Everything before it is stored."
                " Fix that and repeat the command to continue."
            ) from error

    def sync(self) -> None:
        """Wait until the disk has everything, so that it survives a power failure. Raises AppendError."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise AppendError(f"{self.path}: the disk did not store the last records ({error.strerror}).") from error

    def _write(self, line: bytes) -> None:
        """Write a whole line or nothing, even if the disk fills up in the middle."""
        done = 0
        try:
            while done < len(line):
                done += self._file.write(line[done:]) or 0
        except OSError:
            os.ftruncate(self._file.fileno(), self._size)
            raise
        self._size += len(line)

    def read(self, *, epochs: bool = True) -> Iterator[Record]:
        """Yield every record in order, with empty pictures: `picture` returns them.

        Without `epochs`, the records of epochs, pictures and latents are left out, which saves most of the time.

        Raises JournalError with the line number if the file is damaged.
        """
        for number, line in self._lines():
            body = self._checked(line, number)
            if epochs or _DETAIL.search(body, 0, _HEAD) is None:
                yield self._parse(body, number)

    def outline(self, run_keys: Iterable[str]) -> Iterator[Record]:
        """Yield the records of these runs, run by run. Of consecutive epochs, yield only the first and the last.

        Other lines are not checked for damage.
        """
        starts = {b'{"run_key": %s' % json.dumps(key).encode(): dict[int, bytes]() for key in run_keys}
        for number, line in self._lines():
            if (kept := starts.get(line[_BODY_START : line.find(b",")])) is not None:
                _keep_line(kept, line, number)
        for kept in starts.values():
            for number, line in kept.items():
                yield self._parse(self._checked(line, number), number)

    def read_lines(self) -> Iterator[tuple[bytes, Record | None]]:
        """Yield every line and its record without picture, or None if the line is damaged.

        Raises JournalError for an undamaged line that is not a record of this version.
        """
        for number, line in self._lines():
            try:
                body = self._checked(line, number)
            except JournalError:
                yield line, None
            else:
                yield line, self._parse(body, number)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each whole line with its number; none if there is no file."""
        try:
            with self.path.open("rb") as lines:
                yield from ((number, line) for number, line in enumerate(lines, 1) if line.endswith(b"\n"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(f"{self.path}: the journal cannot be read ({error.strerror}).") from error

    def _checked(self, line: bytes, number: int) -> bytes:
        checksum, _, body = line[:-1].partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            raise JournalError(
                f"{self.path}:{number}: expected a line with its checksum, got {checksum[:8]!r}; the journal is "
                "damaged. `harness repair` leaves out the damaged lines; their runs are computed again."
            )
        return body

    def _parse(self, body: bytes, number: int) -> Record:
        try:
            data = json.loads(body)
            if data["kind"] == Picture.kind and "sha256" in data:
                data["png"] = ""
            return Record.from_data(data)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise JournalError(
                f"{self.path}:{number}: expected a record of this version, got: {type(error).__name__}: {error}. "
                "Move the folder away and run the grid again."
            ) from error

    def _move_picture_out(self, text: str, png: bytes) -> str:
        data = json.loads(text)
        del data["png"]
        if self.picture(data["sha256"]) is None:
            # without syncing the folder, 5 ms instead of 10: a lost picture is detected on read
            atomic_file.write(self._images / f"{data['sha256']}.png", png, sync_folder=False)
        return json.dumps(data)

    def picture(self, sha256: str) -> bytes | None:
        """Return the picture with this checksum, or None if it is missing or damaged."""
        try:
            png = (self.folder / "images" / f"{sha256}.png").read_bytes()
        except OSError:
            return None
        return png if hashlib.sha256(png).hexdigest() == sha256 else None

    def _drop_torn_line(self) -> int:
        """Drop a last line that was cut off when the machine stopped. Return its size in bytes."""
        if not self.path.exists():
            return 0
        with self.path.open("rb+") as file:
            size = end = file.seek(0, os.SEEK_END)
            newline = -1
            while newline < 0 < end:
                start = max(0, end - _BLOCK)
                file.seek(start)
                newline, end = file.read(end - start).rfind(b"\n"), start
            whole = end + newline + 1
            if whole < size:
                file.truncate(whole)
            return size - whole


_BLOCK = 1 << 16
_BODY_START = 9
"""A line begins with a checksum of 8 characters and a space."""
_EPOCH, _HEAD = b'"kind": "epoch"', 100
_DETAIL = re.compile(rb'"kind": "(epoch|image|latents)"')
"""Recognises such records without parsing them. `Record.to_json` puts the kind into the first bytes."""


def _keep_line(kept: dict[int, bytes], line: bytes, number: int) -> None:
    """Add a line of a run. A third epoch in a row replaces the second."""
    last_two = list(kept)[-2:]
    if len(last_two) == 2 and all(_EPOCH in one[:_HEAD] for one in (line, *(kept[n] for n in last_two))):
        del kept[last_two[1]]
    kept[number] = line


def checksummed_line(text: str) -> bytes:
    """Return the line of the journal for the JSON of a record."""
    body = text.encode()
    return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"
