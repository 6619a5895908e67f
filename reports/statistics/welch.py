"""The difference of two means of independent samples, of which only mean, deviation and size may be known."""

from __future__ import annotations

import math
from typing import NamedTuple

import scipy.stats

from reports.statistics.intervals import CONFIDENCE, UNKNOWN, Interval

LEAST = 3
"""Values that either sample must have."""


class Sample(NamedTuple):
    """Mean, standard deviation (with n − 1) and size; None where a source does not give it."""

    mean: float
    sd: float | None
    n: int | None


def welch_interval(one: Sample, other: Sample, confidence: float = CONFIDENCE) -> Interval:
    """Return Welch's t interval of mean(one) − mean(other), for independent samples of unequal variances.

    d ± t(m) e, e² = s₁²/n₁ + s₂²/n₂, m = e⁴ / (s₁⁴/(n₁²(n₁−1)) + s₂⁴/(n₂²(n₂−1))). Unknown where either sample has
    fewer than three values or no deviation. Source: Welch (1947), Biometrika 34:28; Satterthwaite (1946), Biometrics
    Bulletin 2:110.
    """
    parts = []
    for _, sd, n in (one, other):
        if sd is None or n is None or n < LEAST or not math.isfinite(sd):
            return UNKNOWN
        parts.append((sd * sd / n, n - 1))
    difference, variance = one.mean - other.mean, sum(part for part, _ in parts)
    if variance == 0:
        return Interval(difference, difference)
    freedom = variance**2 / sum(part * part / below for part, below in parts)
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(variance)
    return Interval(difference - half, difference + half)
