"""Checks of what estimators are given: arguments of constructors, temperatures, and results of costs."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import Tensor, nn


def check_number(name: str, key: str, value: object, *, above: float) -> float:
    """Return a finite number greater than `above`. Raises ValueError for others, and for a bool or a string."""
    if isinstance(value, bool) or not isinstance(value, Real) or not above < float(value) < math.inf:
        raise ValueError(f"{name}: expected {key} > {above:g}, got {value!r}.")
    return float(value)


def check_positive(name: str, key: str, value: object) -> float:
    """Return a finite number > 0. Raises ValueError for others, and for a bool or a string."""
    return check_number(name, key, value, above=0.0)


def check_between(name: str, key: str, value: object, low: float, high: float) -> float:
    """Return a number from `low` to `high`. Raises ValueError for others, and for a bool or a string."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise ValueError(f"{name}: expected {low:g} <= {key} <= {high:g}, got {value!r}.")
    return float(value)


def check_decay(name: str, value: object) -> float:
    """Return the share of a moving average that stays, 0 <= decay < 1. Raises ValueError for others, and for a bool."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{name}: expected 0 <= decay < 1, got {value!r}.")
    return float(value)


def check_count(name: str, key: str, value: object, *, at_least: int = 1) -> int:
    """Return a whole number of at least `at_least`. Raises ValueError for others, and for a bool or 2.0."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name}: expected a whole number {key} >= {at_least}, got {value!r}.")
    return int(value)


def learned_weight(name: str, key: str, value: object) -> nn.Parameter:
    """Return a finite number >= 0, the weight of a control variate, as a parameter. Raises ValueError for others."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name}: expected {key} >= 0, got {value!r}.")
    return nn.Parameter(torch.tensor(float(value)))


def check_costs(name: str, cost_SB: object, shape: tuple[int, ...]) -> Tensor:
    """Return the result of a cost. Raises ValueError unless it is a floating-point tensor of that shape."""
    if not isinstance(cost_SB, Tensor) or not cost_SB.is_floating_point():
        got = cost_SB.dtype if isinstance(cost_SB, Tensor) else type(cost_SB).__name__
        raise ValueError(f"{name}: expected a cost that returns a floating-point tensor (S, B), got {got}.")
    if cost_SB.shape != shape:
        raise ValueError(f"{name}: expected cost of shape (S, B) = {tuple(shape)}, got {tuple(cost_SB.shape)}.")
    return cost_SB


def more_codes(than: int, n_latents: int, n_categories: int) -> bool:
    """Return whether n_categories^n_latents > `than`, without a power of millions of digits."""
    if n_categories > 1 and n_latents > than.bit_length():
        return True
    return bool(n_categories**n_latents > than)


def samples_per_call(n_codes: int, n_examples: int) -> int:
    """Return how many samples of each example make at most `n_codes` codes together; at least one."""
    return max(1, n_codes // max(1, n_examples))


Check = Callable[[str, str, object], float]
"""(name of the estimator, key, value) -> the value as a number. Raises ValueError for an impossible one."""


class Temperature(property):
    """A property of an estimator that a schedule sets each step, checked wherever it is set.

    By default a number must be > 0 and finite. A tensor of no dimensions, which a learned schedule sets, is not
    checked: it is positive by construction, and reading it would stall a GPU. One with a gradient is refused if the
    estimator is not differentiable in it.
    """

    def __init__(self, key: str, check: Check = check_positive, *, is_learnable: bool = True) -> None:
        def get(self: Any) -> float | Tensor | None:
            return cast(float | Tensor | None, getattr(self, f"_{key}", None))

        def put(self: Any, value: float | Tensor) -> None:
            if key not in self.temperatures:
                raise ValueError(f"{self.name}: expected no {key}, got {value!r}. It has no temperature.")
            is_learned = isinstance(value, Tensor) and value.ndim == 0
            if isinstance(value, Tensor) and value.requires_grad and not is_learnable:
                raise ValueError(f"{self.name}: expected {key} without a gradient, got {value!r}. It is never learned.")
            setattr(self, f"_{key}", value if is_learned else check(self.name, key, value))

        super().__init__(get, put, doc="The temperature: state that a schedule sets each step. None if there is none.")


def temperature(key: str) -> property:
    """Return a property that checks a temperature wherever it is set: see Temperature."""
    return Temperature(key)
