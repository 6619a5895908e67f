"""Independent random streams from one seed.

The seed of a run decides initialisation, data order, training noise and evaluation noise, each through its own stream.
Two estimators with the same seed start from the same weights and see the same batches, however much noise they draw.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor

Stream = Literal["initialisation", "estimator", "data", "binarization", "noise", "evaluation", "gap", "diagnostics"]


def stream_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """Return the 63-bit seed of one stream of a run. Each `index`, such as an epoch, has a stream of its own."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: Stream, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one stream of a run."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, index))


@contextmanager
def seeded(seed: int, stream: Stream, index: int = 0, *, device: torch.device) -> Iterator[None]:
    """Seed torch's default generators inside the block, and restore those of the CPU and of `device` after it.

    Noise that is drawn inside does not change the noise outside: evaluating more often does not alter training.
    """
    before = _states(device)
    torch.manual_seed(stream_seed(seed, stream, index))
    try:
        yield
    finally:
        for restore, state in before:
            restore(state)


def noise_state(device: torch.device) -> list[Tensor]:
    """Return the states of the generators of the CPU and of a device: the same as before if nothing was drawn."""
    return [state for _, state in _states(device)]


def restore_noise(states: list[Tensor], device: torch.device) -> None:
    """Restore the states of the generators of the CPU and of a device that `noise_state` returned."""
    for (restore, _), state in zip(_states(device), states, strict=True):
        restore(state)


def _states(device: torch.device) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    """Return the state of the CPU's generator and of the device's, each with the function that restores it."""
    states: list[tuple[Callable[[Tensor], None], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda":
        states.append((partial(torch.cuda.set_rng_state, device=device), torch.cuda.get_rng_state(device)))
    elif device.type == "mps":
        states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return states
