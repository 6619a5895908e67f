"""Images of one's own in a file of numpy (`numpy.savez`): arrays `train`, `test`, and others of `own_images`."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from harness.datasets.descriptions import DataError
from harness.datasets.own_images import SPLITS, OwnImages, check_form, check_memory, check_names, checked

_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def read_file(path: Path, label: str) -> OwnImages:
    """Return the images of a file. Raises DataError, which begins with `label`, if it has anything else."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else f"none at {path}"
        hint = " Images in a folder: name: folder." if path.is_dir() else ""
        raise DataError(f"{label}: expected a file of numpy.savez, found {found}.{hint}")
    try:
        headers = _headers(path, label)
        _check_headers(headers, label)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in headers}
    except _DAMAGE as error:
        raise DataError(f"{label}: expected a whole file of numpy.savez, got: {_one_line(error)}") from error
    return checked(arrays, label)


def _headers(path: Path, label: str) -> dict[str, _Header]:
    """Return the shape and type of each array, by name, without reading its values."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise DataError(f"{label}: expected a file of numpy.savez (.npz), got another one.")
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                found[member.removesuffix(".npy")] = _header(npy_format.read_magic(file), file)
    return found


def _header(version: tuple[int, int], file: IO[bytes]) -> _Header:
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    return _Header(shape, dtype)


def _check_headers(headers: dict[str, _Header], label: str) -> None:
    """Refuse what can be refused before the values are read, and what does not fit into memory."""
    check_names(list(headers), label)
    for split in SPLITS:
        if split in headers:
            check_form(*headers[split], f"{label}: {split}")
    n_values = sum(math.prod(headers[split].shape) for split in SPLITS if split in headers)
    check_memory(n_values, headers["train"].dtype.itemsize, label)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
