"""Files that are written as a whole: a reader finds the previous content or the new one, even after a power failure."""

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""The errors of file systems that cannot sync a folder."""


def write(path: Path, content: bytes, *, sync_folder: bool = True) -> None:
    """Write a file or replace it. If that fails, OSError is raised and the previous file stays."""
    with replacing(path, sync_folder=sync_folder) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, sync_folder: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends without an error.

    Without `sync_folder` it takes half the time, but a power failure may restore the previous file. A process that is
    killed meanwhile may leave a `.partial` file behind. `remove_partials` removes it.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if sync_folder:
        _sync_folder(path.parent)


def remove_partials(folder: Path, *, older_than_s: float = 0.0) -> None:
    """Remove what killed writers left in a folder. Other writers must be excluded by a lease or by the age."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):  # another process was faster, or the disk became read-only
            if time.time() - partial.stat().st_mtime >= older_than_s:
                partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, if the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
