"""The data sets on disk: a folder each, verified when read, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import atomic_file
from harness.datasets.descriptions import DataError, DataFile, DatasetInfo
from harness.datasets.idx import read_bytes, read_verified, sha256
from harness.environment import path_variable, user_folder

CHECKSUMS = "SHA256SUMS"  # next to files that were made on this machine; `sha256sum -c` reads it
_STALE_S = 3_600.0
"""A partial file that is older belongs to a writer that was killed."""


def default_data_dir() -> Path:
    """Return the folder of data sets: $HARNESS_DATA_DIR, else argmax-harness/data in the user's data folder."""
    chosen = path_variable("HARNESS_DATA_DIR")
    return (chosen or user_folder("XDG_DATA_HOME", ".local/share") / "argmax-harness" / "data").absolute()


def read(info: DatasetInfo, file: DataFile, data_dir: Path) -> NDArray[np.integer]:
    """Return the verified array of a stored file.

    Raises DataError, with the command that gets it, if the file is missing or damaged.
    """
    folder = data_dir / info.name
    sums = recorded_checksums(folder)
    damage: list[DataError] = []
    for path in copies(folder, file):
        try:
            return read_verified(path, file, sums.get(path.name))
        except DataError as error:
            damage.append(error)
    if damage:
        raise DataError(f"{damage[0]} Get it again with: {info.how}") from damage[0]
    found = f"no {file.name}" if any(copies(folder, other) for other in info.files) else "none"
    raise DataError(f"{info.name}: expected files in {folder}, found {found}. Get it with: {info.how}")


def is_complete(info: DatasetInfo, data_dir: Path) -> bool:
    """Return whether every file of the data set is stored and undamaged."""
    try:
        for file in info.files:
            read(info, file, data_dir)
    except DataError:
        return False
    return True


def copies(folder: Path, file: DataFile) -> list[Path]:
    """Return the copies of a file in a folder, plain before .gz."""
    return [path for path in (folder / file.name, folder / f"{file.name}.gz") if path.is_file()]


def recorded_checksums(folder: Path) -> dict[str, str]:
    """Return SHA-256 by file name, as recorded when files were made; empty if there is no record."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    lines = read_bytes(path).decode("ascii", errors="replace").splitlines()
    return {name: found for found, _, name in (line.partition("  ") for line in lines)}


def make_folder(folder: Path) -> None:
    """Make the folder. Raises DataError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_file.remove_partials(folder, older_than_s=_STALE_S)
    except OSError as error:
        raise DataError(f"{folder}: expected a writable folder, got: {error.strerror or error}.") from error


def install(folder: Path, contents: Mapping[str, bytes], *, record: bool) -> None:
    """Write files and then, with `record`, their checksums. A file that needs one is not used without it."""
    for name, content in contents.items():
        write_file(folder / name, content)
    if record:
        lines = [f"{sha256(content)}  {name}\n" for name, content in contents.items()]
        write_file(folder / CHECKSUMS, "".join(lines).encode("ascii"))


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also if this process is killed. Raises DataError if that fails."""
    try:
        atomic_file.write(path, content)
    except OSError as error:
        raise DataError(f"{path}: expected to write {len(content):,} bytes, got: {error.strerror or error}.") from error
