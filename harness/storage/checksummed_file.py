"""Small files with a checksum in their first line, written as a whole.

The first line is `harness-sealed 1 <SHA-256 of the content, in hex>`. The content follows. Damage, whatever its cause,
is noticed when the file is read.
"""

import hashlib
import os
import re
from itertools import count
from pathlib import Path

from harness import atomic_file

_HEADER = re.compile(rb"harness-sealed 1 ([0-9a-f]{64})\n")


class DamagedError(Exception):
    """The content does not have its checksum. The message is one line."""


def write(path: Path, content: bytes) -> None:
    """Write a file or replace it. If that fails, OSError is raised and the previous file stays."""
    atomic_file.write(path, add_checksum(content))


def read(path: Path) -> bytes:
    """Return the content of a file without its checksum. Raises DamagedError and OSError."""
    return verify(path.read_bytes(), str(path))


def add_checksum(content: bytes) -> bytes:
    """Return the content after a line with its checksum."""
    return f"harness-sealed 1 {hashlib.sha256(content).hexdigest()}\n".encode() + content


def verify(stored: bytes, where: str) -> bytes:
    """Return the content without its checksum. `where` names it in messages. Raises DamagedError."""
    header = _HEADER.match(stored)
    if header is None:
        start = repr(stored[:24]) if stored else "an empty file"
        raise DamagedError(f"{where}: expected the first line 'harness-sealed 1' and a checksum, got {start}.")
    expected, content = header[1].decode(), stored[header.end() :]
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise DamagedError(
            f"{where}: expected content with the checksum {expected[:16]}, got {got[:16]} ({len(content)} bytes)."
        )
    return content


def rename_damaged(path: Path) -> Path:
    """Rename a damaged file, so that nothing is lost and its name is free. Return the new path."""
    target = damaged_path(path)
    os.rename(path, target)
    return target


def damaged_path(path: Path) -> Path:
    """Return a free path in the same folder for a damaged file."""
    paths = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(each for each in paths if not each.exists())
