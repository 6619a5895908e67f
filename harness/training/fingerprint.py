"""A few numbers that tell whether two processes have the same data.

They are no checksum: another processor may round data that a task computes another way, and the runs stay the same.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from harness.tasks.splits import NoData, Splits, parts

CHUNK = 1_000_000
TOLERANCE = 1e-3
"""Differences of less than this share of the size of the numbers count as rounding."""


def fingerprint(data: Splits | NoData) -> tuple[float, ...]:
    """Return two numbers for each tensor: its root mean square, and a sum that depends on the order.

    None for a task without data.
    """
    if isinstance(data, NoData):
        return ()
    splits = (data.train, data.validation, data.test)
    return tuple(number for split in splits if split is not None for one in parts(split) for number in _numbers(one))


def _numbers(one: Tensor) -> Iterator[float]:
    square = total = 0.0
    for start, chunk in enumerate(torch.split(one.detach().flatten(), CHUNK)):
        value = torch.nan_to_num(chunk.double(), nan=3e6, posinf=2e6, neginf=-2e6)
        square += value.square().sum().item()
        place = torch.arange(start * CHUNK, start * CHUNK + len(value), dtype=torch.float64, device=value.device)
        total += (value * place.cos()).sum().item()
    yield (square / one.numel()) ** 0.5
    yield total / one.numel() ** 0.5


def is_same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two fingerprints are those of the same data."""
    if len(one) != len(other):
        return False
    sizes = [size for size in one[::2] for _ in range(2)]
    return all(abs(a - b) <= TOLERANCE * size for a, b, size in zip(one, other, sizes, strict=True))
