"""The append-only file of a sweep: what happened, in order, before anything else hears of it.

A line is `<crc32 of the JSON, 8 hex digits> <record as JSON>`. A last line without its newline was being written when
the machine stopped: it is dropped. Any other line whose checksum does not fit means that the file was damaged, and is
refused. Pictures lie beside the journal, named by their own SHA-256, so that the journal stays small.
"""

import base64
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from harness.errors import UserError
from harness.events import TERMINAL, EpochDone, Event, Image, Latents, Record, Started, Weights, is_cut_short
from harness.provenance import code_version


class JournalError(UserError):
    """The journal cannot be read or written."""


class AppendError(JournalError):
    """The disk takes no more: the sweep stops, and goes on where it was when the disk does."""

    exit_code = 1


class Journal:
    """Appends records to `folder`/journal.jsonl and reads them back. One writer at a time (the driver)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.jsonl"

    def __enter__(self) -> Self:
        self._images = self.folder / "images"
        try:
            self._images.mkdir(parents=True, exist_ok=True)
            self.cut_bytes = self._drop_torn_line()
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise JournalError(
                f"{self.path}: expected a journal to write to, got: {error.strerror}. Mend that, or choose another"
                " --out."
            ) from error
        self._size = self._file.tell()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Record) -> None:
        """Write one record and hand it to the operating system, so that it survives the death of this process.

        Raises AppendError where that fails, with everything before it intact and nothing of it written.
        """
        text = record.to_json()
        try:
            if isinstance(record.event, Image):
                text = self._move_picture_out(text, record.event.png)
            self._write(line_of(text))
        except OSError as error:
            raise AppendError(
                f"{self.path}: expected to append a record, got: {error.strerror}. Everything before it is stored;"
                " mend that, and the same command goes on."
            ) from error

    def sync(self) -> None:
        """Wait until the disk has everything: then it survives the machine too."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise AppendError(
                f"{self.path}: expected the disk to keep what was written, got: {error.strerror}."
            ) from error

    def _write(self, line: bytes) -> None:
        """Write a line, whole or not at all: a disk may fill up in the middle of it."""
        done = 0
        try:
            while done < len(line):
                done += self._file.write(line[done:]) or 0
        except OSError:
            os.ftruncate(self._file.fileno(), self._size)
            raise
        self._size += len(line)

    def read(self, *, pictures: bool = True, epochs: bool = True) -> Iterator[Record]:
        """Yield every whole record in order.

        Without `pictures` these, most of the bytes, are left empty. Without `epochs` all that lies between starts and
        ends is left out, most of the lines: epochs, pictures, latents.

        Raises JournalError, with the line number, where the file is damaged.
        """
        with self._opened() as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                body = self._checked(line[:-1], number)
                if epochs or _DETAIL.search(body, 0, _HEAD) is None:
                    yield self._parse(body, number, pictures)

    def outline(self, run_keys: Iterable[str]) -> Iterator[Record]:
        """Yield the records of these runs, run by run; of epochs that follow one another only the first and the last.

        Nothing else is looked at, so damage to the rest is not seen here.
        """
        starts = {b'{"run_key": %s' % json.dumps(key).encode(): dict[int, bytes]() for key in run_keys}
        with self._opened() as lines:
            for number, line in enumerate(lines, 1):
                if (kept := starts.get(line[9 : line.find(b",")])) is not None and line.endswith(b"\n"):
                    _keep(kept, line, number)
        for kept in starts.values():
            for number, line in kept.items():
                yield self._parse(self._checked(line[:-1], number), number, pictures=False)

    def lines(self) -> Iterator[tuple[bytes, Record | None]]:
        """Yield every whole line and its record, without picture; None for one that does not fit its checksum.

        Raises JournalError where one does, but is no record of this version: that is no damage.
        """
        with self._opened() as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    body = self._checked(line[:-1], number)
                except JournalError:
                    yield line, None
                else:
                    yield line, self._parse(body, number, pictures=False)

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            return io.BytesIO()
        except OSError as error:
            raise JournalError(f"{self.path}: expected a journal that can be read, got: {error.strerror}.") from error

    def _checked(self, line: bytes, number: int) -> bytes:
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            where = f"{self.path}:{number}"
            raise JournalError(
                f"{where}: expected a line with its own checksum, got {checksum[:8]!r}: the journal is damaged. "
                "`harness repair` leaves out what is; that is run again."
            )
        return body

    def _parse(self, body: bytes, number: int, pictures: bool) -> Record:
        where = f"{self.path}:{number}"
        try:
            data = json.loads(body)
            if data["kind"] == Image.kind and "sha256" in data:
                png = self._read_picture(data["sha256"], where) if pictures else b""
                data["png"] = base64.b64encode(png).decode()
            return Record.from_data(data)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise JournalError(
                f"{where}: expected a record of this version, got: {type(error).__name__}: {error}. "
                "Move the folder away and run the grid again."
            ) from error

    def _move_picture_out(self, text: str, png: bytes) -> str:
        data = json.loads(text)
        del data["png"]
        if self.picture(data["sha256"]) is None:
            target = self._images / f"{data['sha256']}.png"
            partial = target.with_suffix(".partial")
            with partial.open("wb") as file:
                file.write(png)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        return json.dumps(data)

    def picture(self, sha256: str) -> bytes | None:
        """Return the picture with this checksum, or None if its file is missing or damaged."""
        try:
            png = (self.folder / "images" / f"{sha256}.png").read_bytes()
        except OSError:
            return None
        return png if hashlib.sha256(png).hexdigest() == sha256 else None

    def _read_picture(self, sha256: str, where: str) -> bytes:
        png = self.picture(sha256)
        if png is None:
            raise JournalError(
                f"{where}: expected the picture {sha256}.png with its own checksum, got a damaged or missing file."
            )
        return png

    def _drop_torn_line(self) -> int:
        """Cut what was being written when the machine stopped; return its size in bytes."""
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
_BEFORE_KEY, _EPOCH, _HEAD = b'{"run_key": "', b'"kind": "epoch"', 100
_DETAIL = re.compile(rb'"kind": "(epoch|image|latents)"')
"""How such a record's JSON is known without parsing it: by its first bytes, where `Record.to_json` puts the kind."""


def _keep(kept: dict[int, bytes], line: bytes, number: int) -> None:
    """Add a line of a run to those that are kept; a third epoch in a row takes the place of the second."""
    last_two = list(kept)[-2:]
    if len(last_two) == 2 and all(_EPOCH in one[:_HEAD] for one in (line, *(kept[n] for n in last_two))):
        del kept[last_two[1]]
    kept[number] = line


def line_of(text: str) -> bytes:
    """Return the line of the journal for a record's JSON: its checksum first."""
    body = text.encode()
    return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"


@dataclass
class Attempt:
    """One attempt at a run, from its first start on: cut short and gone on with, it stays the same attempt."""

    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> Event | None:
        """The event that ended the attempt, or None while it is under way (or was killed)."""
        last = self.records[-1].event if self.records else None
        return last if isinstance(last, TERMINAL) else None

    @property
    def status(self) -> str:
        return self.end.kind if self.end is not None else "running"

    @property
    def epochs(self) -> list[EpochDone]:
        return [r.event for r in self.records if isinstance(r.event, EpochDone)]

    @property
    def made_by(self) -> tuple[str | None, str | None] | None:
        """The code that computes it, as `code_version` tells; None if it never started."""
        first = self.records[0].event
        return code_version(first.provenance) if isinstance(first, Started) else None

    @property
    def begun_ms(self) -> int:
        """When it began; this identifies the attempt among those at the same run."""
        return self.records[0].time_ms

    def goes_on_with(self, event: Event) -> bool:
        """Return whether an event belongs to this attempt: not if it starts another one.

        A start goes on with an attempt that was cut short, if the same code made both; all others begin a new one.
        """
        if not isinstance(event, Started) or self.made_by is None:
            return not isinstance(event, Started)
        return is_cut_short(self.end) and self.made_by[0] is not None and code_version(event.provenance) == self.made_by

    def is_repeat(self, event: Event) -> bool:
        """Return whether the attempt has this already: it went on from a checkpoint before it."""
        if isinstance(event, EpochDone):
            return any(known.epoch == event.epoch for known in self.epochs)
        known = (record.event for record in self.records)
        if isinstance(event, Image):
            return (event.name, event.step) in ((e.name, e.step) for e in known if isinstance(e, Image))
        return isinstance(event, Latents | Weights) and any(type(e) is type(event) for e in known)


def attempts(records: Iterable[Record]) -> dict[str, Attempt]:
    """Return the newest attempt of every run that the journal knows."""
    newest: dict[str, Attempt] = {}
    for record in records:
        add(record, newest)
    return newest


def add(record: Record, newest: MutableMapping[str, Attempt]) -> Attempt:
    """Add a record to the newest attempt at its run, or begin a new one with it; return that attempt."""
    attempt = newest.get(record.run_key)
    if attempt is None or not attempt.goes_on_with(record.event):
        attempt = newest[record.run_key] = Attempt()
    attempt.records.append(record)
    return attempt
