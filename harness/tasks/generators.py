"""The global generators of numpy and Python, which the data of a task may come from, beside torch's."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def others_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of numpy and Python inside the block, and restore them after it."""
    before = random.getstate(), np.random.get_state()  # the legacy generator is the global one
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
