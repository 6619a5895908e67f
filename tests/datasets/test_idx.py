"""IDX files: whatever is wrong with one, the answer is a DataError of one line."""

import gzip
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from harness.datasets.descriptions import DataError, DataFile
from harness.datasets.idx import format_idx, gunzip, parse_idx, read_verified, sha256, verified_array

IMAGE_NHW = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = format_idx(IMAGE_NHW)
PACKED = gzip.compress(CONTENT, mtime=0)
PLAIN_FILE = DataFile("images", (2, 3, 4), sha256=sha256(CONTENT))
PACKED_FILE = DataFile("images", (2, 3, 4), sha256_gz=sha256(PACKED))


def flips(content: bytes) -> Iterator[bytes]:
    for position in range(len(content)):
        for bit in (1, 128):
            yield content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :]


def assert_refused(content: bytes, file: DataFile) -> None:
    with pytest.raises(DataError) as caught:
        verified_array(content, file, "images")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("images: expected ")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_what_is_written_is_read(dtype, shape):
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    assert np.array_equal(parse_idx(format_idx(array), "x"), array)


def test_the_layout_is_that_of_mnist():
    assert CONTENT[:16] == struct.pack(">4I", 0x00000803, 2, 3, 4)
    assert format_idx(np.zeros(7, np.uint8))[:8] == struct.pack(">2I", 0x00000801, 7)


@pytest.mark.parametrize(("content", "file"), [(CONTENT, PLAIN_FILE), (PACKED, PLAIN_FILE), (PACKED, PACKED_FILE)])
def test_a_verified_file_is_read(content, file):
    assert np.array_equal(verified_array(content, file, "images"), IMAGE_NHW)


@pytest.mark.parametrize("length", range(len(CONTENT)))
def test_a_short_file_is_refused(length):
    with pytest.raises(DataError, match=r"^images: expected "):
        parse_idx(CONTENT[:length], "images")
    assert_refused(CONTENT[:length], PLAIN_FILE)


def test_the_error_of_a_short_file_has_both_lengths():
    with pytest.raises(DataError) as caught:
        parse_idx(CONTENT[:-1], "images")
    assert str(caught.value) == "images: expected 40 bytes for (2, 3, 4), got 39."


@pytest.mark.parametrize("tail", [b"\0", CONTENT])
def test_a_long_file_is_refused(tail):
    with pytest.raises(DataError, match=r"expected 40 bytes"):
        parse_idx(CONTENT + tail, "images")


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">2I", 0x00000800, 1),  # no dimension
        struct.pack(">2I", 0x00000901, 1),  # signed bytes, which no data set here has
        struct.pack(">2I", 0x00000D01, 1),  # floats
        struct.pack(">2I", 0x01000801, 1),  # not two zeros
        struct.pack("<2I", 0x00000801, 1),  # little-endian
        b"<html><body>Not found</body></html>",
        b"PK\x03\x04",
    ],
)
def test_a_wrong_magic_is_refused(header):
    with pytest.raises(DataError, match=r"^images: expected an IDX file, got one that begins with"):
        parse_idx(header + bytes(100), "images")


@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">4I", 0x00000803, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(10),
        struct.pack(">4I", 0x00000803, 0, 28, 28),
        struct.pack(">4I", 0x00000803, 2**31, 2**31, 0),
        bytes([0, 0, 8, 255]) + b"\xff" * 1020,
        bytes([0, 0, 8, 255]) + struct.pack(">255I", *[1] * 255) + b"\0",
        bytes([0, 0, 8, 4]) + struct.pack(">4I", 1, 1, 1, 1) + b"\0",
    ],
)
def test_impossible_dimensions_are_refused_without_reserving_memory(content):
    with pytest.raises(DataError, match=r"^images: expected "):
        parse_idx(content, "images")


def test_a_flipped_bit_is_found():
    for damaged in flips(CONTENT):
        assert_refused(damaged, PLAIN_FILE)
    for damaged in flips(PACKED):
        assert_refused(damaged, PACKED_FILE)


def test_a_damaged_gz_never_gives_other_content():
    """Header fields such as the time stamp do not matter where the plain content is what is verified; all else does."""
    accepted = 0
    for damaged in flips(PACKED):
        try:
            assert np.array_equal(verified_array(damaged, PLAIN_FILE, "images"), IMAGE_NHW)
            accepted += 1
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert accepted < 20


@pytest.mark.parametrize("length", range(len(PACKED)))
def test_a_short_gz_is_refused(length):
    assert_refused(PACKED[:length], PLAIN_FILE)
    assert_refused(PACKED[:length], PACKED_FILE)


def test_a_gz_that_grows_beyond_its_size_is_refused():
    with pytest.raises(DataError, match=r"^bomb: expected 1,000 bytes after decompression, got more\.$"):
        gunzip(gzip.compress(bytes(50_000_000)), "bomb", 1000)


def test_the_right_content_in_the_wrong_shape_is_refused():
    file = DataFile("images", (4, 3, 2), sha256=sha256(CONTENT))
    with pytest.raises(DataError, match=r"expected shape \(4, 3, 2\), got \(2, 3, 4\)"):
        verified_array(CONTENT, file, "images")


def test_without_any_checksum_a_file_is_refused():
    with pytest.raises(DataError, match=r"with a known checksum, got one without. Fetch the data set again"):
        verified_array(CONTENT, DataFile("images", (2, 3, 4)), "images")
    with pytest.raises(DataError, match=r"with a known checksum, got one without. Give the published .gz file instead"):
        verified_array(CONTENT, PACKED_FILE, "images")
    assert verified_array(CONTENT, DataFile("images", (2, 3, 4)), "images", sha256(CONTENT)).shape == (2, 3, 4)


def test_the_error_of_a_wrong_checksum_has_both():
    with pytest.raises(DataError) as caught:
        verified_array(CONTENT + b"x", PLAIN_FILE, "images")
    found = sha256(CONTENT + b"x")
    assert str(caught.value) == f"images: expected sha256 {sha256(CONTENT)}, got {found} (41 bytes)."


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone: expected a readable file, got: No such file or directory\.$"):
        read_verified(tmp_path / "gone", PLAIN_FILE)
    with pytest.raises(DataError, match=r"expected a readable file, got: Is a directory\.$"):
        read_verified(tmp_path, PLAIN_FILE)
