"""Small files that are written whole or not at all, and that know their own checksum.

A sealed file is the line `harness-sealed 1 <SHA-256 of the content, in hex>` and the content. It is written beside its
place under a name of its own, handed to the disk, and then renamed; so a reader meets the former file or the new one,
whoever is killed or loses power. What another cause has damaged is seen when it is read.
"""

import errno
import hashlib
import os
import re
import uuid
from contextlib import suppress
from itertools import count
from pathlib import Path

_HEADER = re.compile(rb"harness-sealed 1 ([0-9a-f]{64})\n")
_NO_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""How file systems say that they have no way to hand a folder to the disk."""


class Damaged(Exception):  # noqa: N818 it says what the content is, not who erred
    """A sealed content that is not what was sealed; the message is one line."""


def seal(content: bytes) -> bytes:
    """Return the content with its header."""
    return f"harness-sealed 1 {hashlib.sha256(content).hexdigest()}\n".encode() + content


def unseal(sealed: bytes, where: str) -> bytes:
    """Return the content; `where` names it in the message. Raises Damaged where header and content do not fit."""
    header = _HEADER.match(sealed)
    if header is None:
        raise Damaged(f"{where}: expected the first line 'harness-sealed 1' and a checksum, got {_start(sealed)}.")
    expected, content = header[1].decode(), sealed[header.end() :]
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise Damaged(
            f"{where}: expected content with the checksum {expected[:16]}, got {got[:16]} ({len(content)} bytes)."
        )
    return content


def write(path: Path, content: bytes) -> None:
    """Replace the file, or make it. Where that fails the former file stays, and OSError is raised.

    A process that is killed while it writes may leave a `.partial` behind: `remove_partials` takes it away.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(seal(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read(path: Path) -> bytes:
    """Return the content of a sealed file. Raises Damaged, and OSError (FileNotFoundError where there is none)."""
    return unseal(path.read_bytes(), str(path))


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that its place is free and nothing is lost. Return its new path."""
    target = free_name(path)
    os.rename(path, target)
    return target


def free_name(path: Path) -> Path:
    """Return the name beside a damaged file under which it may be kept."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left in the folder. Only for who is alone in it."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):  # on a disk that was made read-only
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Hand the names in the folder to the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _start(sealed: bytes) -> str:
    return repr(sealed[:24]) if sealed else "an empty file"
