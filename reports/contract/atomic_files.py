"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Self, final

_STALE_S = 3_600.0
_LIST = ".written.json"


@final
class Folder:
    """A folder of files that a report writes. On exit, files of the previous report that this one lacks are removed.

    Files of anyone else stay: `.written.json` lists those of a report.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._names = path, set[str]()

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, name: str, content: bytes) -> None:
        write_bytes_atomically(self._path / name, content)
        self._names.add(name)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        for name in self._previous() - self._names:
            (self._path / name).unlink(missing_ok=True)
        write_atomically(self._path / _LIST, json.dumps(sorted(self._names)))

    def _previous(self) -> set[str]:
        try:
            names = json.loads((self._path / _LIST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return set()
        return {name for name in names if isinstance(name, str) and Path(name).name == name}


def write_atomically(path: Path, text: str) -> None:
    """Write a text, as UTF-8, beside the target and rename it."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write beside the target and rename it: a reader sees the old file or the new one, never a part of one.

    Partial files that a killed writer left an hour ago or earlier are removed.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with partial.open("xb") as file:  # with the rights that the user's umask gives
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
