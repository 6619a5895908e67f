"""The append-only file of a sweep: what happened, in order, before anything else hears of it.

A line is `<crc32 of the JSON, 8 hex digits> <record as JSON>`. A last line without its newline was being written when
the machine stopped: it is dropped. Any other line whose checksum does not fit means that the file was damaged, and is
refused. Pictures lie beside the journal, named by their own SHA-256, so that the journal stays small.
"""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from harness.events import TERMINAL, EpochDone, Event, Image, Record, Started


class JournalError(Exception):
    """The journal cannot be read or written; the message is one line."""


class Journal:
    """Appends records to `folder`/journal.jsonl and reads them back. One writer at a time (the driver)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.jsonl"

    def __enter__(self) -> Self:
        self._images = self.folder / "images"
        self._images.mkdir(parents=True, exist_ok=True)
        self._drop_torn_line()
        self._file = self.path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Record) -> None:
        """Write one record and hand it to the operating system, so that it survives the death of this process."""
        text = record.to_json()
        if isinstance(record.event, Image):
            text = self._move_picture_out(text, record.event.png)
        line = text.encode()
        try:
            self._file.write(f"{zlib.crc32(line):08x} ".encode() + line + b"\n")
            self._file.flush()
        except OSError as error:
            raise JournalError(f"{self.path}: expected to append a record, got: {error.strerror}.") from error

    def read(self, *, pictures: bool = True) -> Iterator[Record]:
        """Yield every whole record in order, without the pictures if so asked (they are most of the bytes).

        Raises JournalError, with the line number, where the file is damaged.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                if (record := self._parse(line[:-1], number, pictures)) is not None:
                    yield record

    def _parse(self, line: bytes, number: int, pictures: bool) -> Record | None:
        where = f"{self.path}:{number}"
        checksum, _, body = line.partition(b" ")
        if checksum != f"{zlib.crc32(body):08x}".encode():
            raise JournalError(
                f"{where}: expected a line with its own checksum, got {checksum[:8]!r}: the journal is damaged. "
                "Move the folder away and run the grid again."
            )
        data = json.loads(body)
        if "sha256" in data:
            if not pictures:
                return None
            data["png"] = base64.b64encode(self._read_picture(data.pop("sha256"), where)).decode()
        return Record.from_json(json.dumps(data))

    def _move_picture_out(self, text: str, png: bytes) -> str:
        data = json.loads(text)
        del data["png"]
        data["sha256"] = hashlib.sha256(png).hexdigest()
        target = self._images / f"{data['sha256']}.png"
        if not target.exists():
            partial = target.with_suffix(".partial")
            partial.write_bytes(png)
            os.replace(partial, target)
        return json.dumps(data)

    def _read_picture(self, sha256: str, where: str) -> bytes:
        path = self.folder / "images" / f"{sha256}.png"
        png = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(png).hexdigest() != sha256:
            raise JournalError(
                f"{where}: expected the picture {path.name} with its own checksum, got a damaged or missing file."
            )
        return png

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


@dataclass
class Attempt:
    """The newest attempt at one run: what its records add up to."""

    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> Event | None:
        """The event that ended the attempt, or None while it is under way (or was killed)."""
        return next((r.event for r in reversed(self.records) if isinstance(r.event, TERMINAL)), None)

    @property
    def status(self) -> str:
        return self.end.kind if self.end is not None else "running"

    @property
    def epochs(self) -> list[EpochDone]:
        return [r.event for r in self.records if isinstance(r.event, EpochDone)]


def attempts(records: Iterator[Record]) -> dict[str, Attempt]:
    """Return the newest attempt of every run that the journal knows. A `Started` begins a new attempt."""
    newest: dict[str, Attempt] = {}
    for record in records:
        if isinstance(record.event, Started) or record.run_key not in newest:
            newest[record.run_key] = Attempt()
        newest[record.run_key].records.append(record)
    return newest
