"""IDX files, the format of MNIST: read and verified before anything is made of them.

Layout: two zero bytes, a byte for the type, a byte for the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values, big-endian, last dimension fastest.
"""

import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.amat import parse_amat
from harness.datasets.descriptions import DataError, DataFile

_GZIP_MAGIC = b"\x1f\x8b"
_TYPES: dict[int, np.dtype[np.integer]] = {0x08: np.dtype("u1"), 0x0B: np.dtype(">i2")}


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def parse_idx(content: bytes, label: str) -> NDArray[np.integer]:
    """Return the array of an IDX file. Raises DataError, with `label`, for any other content."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or not content[3]:
        raise DataError(f"{label}: expected an IDX file, got one that begins with {content[:4].hex() or 'nothing'}.")
    dtype, n_dims = _TYPES[content[2]], content[3]
    header = 4 + 4 * n_dims
    if len(content) < header:
        raise DataError(f"{label}: expected a header of {header} bytes, got {len(content)} bytes in all.")
    shape = struct.unpack(f">{n_dims}I", content[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(f"{label}: expected {expected:,} bytes for {shape}, got {len(content):,}.")
    if n_dims > 3 or not all(shape):
        raise DataError(f"{label}: expected 1 to 3 dimensions of at least 1, got {shape}.")
    return np.frombuffer(content, dtype, offset=header).reshape(shape)


def format_idx(array: NDArray[np.integer]) -> bytes:
    """Return an IDX file that holds `array`."""
    (code,) = (code for code, dtype in _TYPES.items() if dtype == array.dtype.newbyteorder(">"))
    header = bytes((0, 0, code, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(_TYPES[code]).tobytes()


def gunzip(content: bytes, label: str, limit: int) -> bytes:
    """Return the plain content of a .gz file. Raises DataError if it is damaged or larger than `limit` bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            plain = stream.read(limit + 1)  # a shorter answer reached the end, where gzip compares its checksum
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{label}: expected a whole .gz file, got a damaged one ({error}).") from error
    if len(plain) > limit:
        raise DataError(f"{label}: expected {limit:,} bytes after decompression, got more.")
    return plain


def check_sha256(content: bytes, expected: str, label: str) -> None:
    """Raise DataError unless `content` has that SHA-256."""
    found = sha256(content)
    if found != expected:
        raise DataError(f"{label}: expected sha256 {expected}, got {found} ({len(content):,} bytes).")


def verified_array(content: bytes, file: DataFile, label: str, recorded: str | None = None) -> NDArray[np.integer]:
    """Return the array in the content of a file, plain or .gz, after its checksum has been compared.

    The checksum is the published one, of the plain content or of the .gz; for a file made on this machine it is
    `recorded`, of the bytes on disk. Raises DataError without any of them, or if one does not fit.
    """
    packed = content[:2] == _GZIP_MAGIC
    published = file.sha256_gz if packed else None
    if on_disk := published or recorded:
        check_sha256(content, on_disk, label)
    elif not file.sha256:
        advice = "Give the published .gz file instead." if file.sha256_gz else "Fetch the data set again."
        raise DataError(f"{label}: expected a file with a known checksum, got one without. {advice}")
    plain = gunzip(content, label, file.n_bytes) if packed else content
    if file.sha256:
        check_sha256(plain, file.sha256, label)
    array = parse_amat(plain, file.shape, label) if file.is_text else parse_idx(plain, label)
    if array.shape != file.shape:
        raise DataError(f"{label}: expected shape {file.shape}, got {array.shape}.")
    return array


def read_bytes(path: Path) -> bytes:
    """Return the content of a file. Raises DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got: {error.strerror or error}.") from error


def read_verified(path: Path, file: DataFile, recorded: str | None = None) -> NDArray[np.integer]:
    """Return the array in the file at `path`, verified."""
    return verified_array(read_bytes(path), file, str(path), recorded)
