"""Student's t interval of a mean without SciPy, which would take longer to import than everything else here.

`tests/status/test_ranking.py` compares it with `reports.statistics.t_interval`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """The mean of n values and the ends of its interval, which are None where n is 1."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def half(self) -> float | None:
        """Half of the interval's width: the number after ±."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_with_interval(values: Sequence[float]) -> Mean | None:
    """Return the mean of finite values with its t interval, or None if there are no values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(1, mean, None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Mean(n, mean, mean - half, mean + half)


@lru_cache
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return t with P(|T| <= t) = `confidence`, by Newton's method from below, which cannot overshoot."""
    log_peak = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    t, step = 0.0, 1.0
    while step > 1e-14 * t:
        density = math.exp(log_peak - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (confidence - t_probability(t, freedom)) / (2 * density)
        t += step
    return t


def t_probability(t: float, freedom: int) -> float:
    """Return P(|T| <= t) as a sum, for an integer number of degrees of freedom.

    Source: Abramowitz and Stegun (1964), eqs. 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    terms, term = [], cosine if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        terms.append(term)
        term *= cosine * cosine * k / (k + 1)
    total = sine * math.fsum(terms)
    return 2 / math.pi * (angle + total) if odd else total
