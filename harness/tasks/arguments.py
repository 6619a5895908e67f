"""Checks of the constructor arguments of tasks, beside those of `estimators.base`."""

import math
from numbers import Real


def check_weight(name: str, key: str, value: object) -> float:
    """Return a finite number of at least 0. Raises ValueError for others, and for a bool or a string."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name}: expected {key} >= 0, got {value!r}.")
    return float(value)
