"""Text files of binary images, the format of the binarised MNIST of Salakhutdinov and Murray.

A line for each image: its pixels, 0 or 1, with a space between them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from harness.datasets.descriptions import DataError


def parse_amat(content: bytes, shape: tuple[int, ...], label: str) -> NDArray[np.uint8]:
    """Return images of that shape, (N, H, W), as bytes 0 and 255. Raises DataError, with `label`, for other content."""
    n_images, n_pixels = shape[0], math.prod(shape[1:])
    if len(content) != 2 * n_images * n_pixels:
        raise DataError(
            f"{label}: expected {n_images:,} lines of {n_pixels} pixels, {2 * n_images * n_pixels:,} bytes, got "
            f"{len(content):,} bytes."
        )
    text_ND2 = np.frombuffer(content, np.uint8).reshape(n_images, n_pixels, 2)
    digits_ND, after_ND = text_ND2[..., 0], text_ND2[..., 1]
    is_line_N = (after_ND[:, :-1] == ord(" ")).all(1) & (after_ND[:, -1] == ord("\n"))
    is_binary_N = ((digits_ND == ord("0")) | (digits_ND == ord("1"))).all(1)
    if len(bad := np.flatnonzero(~(is_line_N & is_binary_N))):
        raise DataError(
            f"{label}:{bad[0] + 1}: expected {n_pixels} pixels, 0 or 1, with a space between them, got another line."
        )
    images: NDArray[np.uint8] = np.where(digits_ND == ord("1"), np.uint8(255), np.uint8(0)).reshape(shape)
    return images
