"""Independent random streams from one seed.

The seed of a run decides initialisation, data order, training noise and evaluation noise, each through a stream of
its own, so that two estimators with the same seed start from the same weights and see the same batches however much
noise either draws.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Stream = Literal["initialisation", "data", "binarization", "noise", "evaluation"]


def stream_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """Return the 63-bit seed of one `stream` of a run; each `index` (an epoch, say) has a stream of its own."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: Stream, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one stream of a run."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, index))


@contextmanager
def seeded(seed: int, stream: Stream, index: int = 0, *, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's default generators inside the block and put them back as they were after it.

    Whatever is drawn inside leaves the noise outside unchanged: evaluating more often does not alter training.
    """
    kind = device.type if device is not None else "cpu"
    devices = [] if kind == "cpu" else [device if device is not None and device.index is not None else 0]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if kind == "cpu" else kind):
        torch.manual_seed(stream_seed(seed, stream, index))
        yield
