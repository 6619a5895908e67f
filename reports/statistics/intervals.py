"""Levels and their intervals, for few and expensive runs. Pure functions of numbers; lower is better throughout.

Every default was chosen by its simulated coverage at n = 3 to 20: benchmarks/results/coverage.md, docs/statistics.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats

Values = Sequence[float] | np.ndarray
BOOTSTRAP_RESAMPLES = 4000
BOOTSTRAP_SEED = 20_240_229
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval; ends are NaN where there is none, infinite where n is too small for bounds."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def mirrored(self) -> Interval:
        """The interval of the values with the other sign."""
        return Interval(-self.high, -self.low)


UNKNOWN = Interval(math.nan, math.nan)


def mean(values: Values) -> float:
    """Return the arithmetic mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def median(values: Values) -> float:
    """Return the median; ``inf`` entries are worst, so it is ``inf`` once half of the runs or more have failed."""
    return float(np.median(values)) if len(values) else math.nan


def iqm(values: Values) -> float:
    """Return the interquartile mean: the mean of the middle half, with fractional weights at its ends.

    Where 4 divides n it is the 25 % trimmed mean of Agarwal et al. (2021), arXiv:2108.13264, §4.3.
    """
    return float(_iqm_along(np.asarray(values, dtype=float))) if len(values) else math.nan


def _iqm_along(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the IQM along an axis.

    A value of weight 0 is left out, so that an ``inf`` in the outer quarter does no harm.
    """
    ordered = np.sort(np.moveaxis(values, axis, -1), axis=-1)
    n = ordered.shape[-1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    used = weights > 1e-12
    return np.asarray(ordered[..., used] @ (weights[used] / weights[used].sum()))


def t_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Return Student's t interval of the mean, or of the mean difference if ``values`` are paired differences.

    x̄ ± t(n−1) s/√n. It covers 95 % at every n for normal values. Source: Student (1908), Biometrika 6:1.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2 or not np.all(np.isfinite(values)):
        return UNKNOWN
    return _around(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n), n - 1, confidence)


def _around(centre: float, error: float, freedom: int, confidence: float) -> Interval:
    half = _t_quantile((1 + confidence) / 2, freedom) * error
    return Interval(float(centre - half), float(centre + half))


@functools.lru_cache(maxsize=1024)
def _t_quantile(p: float, freedom: int) -> float:
    return float(scipy.stats.t.ppf(p, freedom))


def iqm_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Return Student's t interval of the IQM, with the error of a trimmed mean: IQM ± t(n−2⌊n/4⌋−1) s_w / (½√n).

    s_w is the standard deviation of the values clipped at their quartiles. At n = 3 to 20 it covers better than any
    bootstrap. Source: Tukey and McLaughlin (1963), Sankhyā A 25:331. Departure: quartiles by linear interpolation
    instead of the order statistics ⌊n/4⌋+1, for 4 need not divide n. n < 3 or a failed run: unknown.
    """
    values = np.sort(np.asarray(values, dtype=float))
    n = len(values)
    if n < 3 or not np.all(np.isfinite(values)):
        return UNKNOWN
    clipped = np.clip(values, *np.quantile(values, [0.25, 0.75]))
    error = float(clipped.std(ddof=1)) / (0.5 * math.sqrt(n))
    return _around(iqm(values), error, n - 2 * (n // 4) - 1, confidence)


def median_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the median between two order statistics, from the sign test: x₍ₖ₎ to x₍ₙ₊₁₋ₖ₎.

    k is the largest with 2 P(Binomial(n, ½) < k) ≤ 1 − confidence. It covers at least the nominal rate for every
    distribution, failed runs (``inf``) included; below n = 6 no such k exists and the ends are infinite.
    Source: Thompson (1936), Annals of Mathematical Statistics 7:122; Hollander and Wolfe (1999), §3.6.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    k = _sign_depth(n, confidence)
    return Interval(float(ordered[k - 1]), float(ordered[n - k])) if k else Interval(-math.inf, math.inf)


@functools.lru_cache(maxsize=256)
def _sign_depth(n: int, confidence: float) -> int:
    below = scipy.stats.binom.cdf(np.arange(n // 2 + 1), n, 0.5)
    return int(np.sum(2 * below <= 1 - confidence + 1e-12))


Statistic = Callable[..., np.ndarray]
_BOOTSTRAPPED: dict[str, tuple[Statistic, str]] = {
    "mean": (np.mean, "BCa"),
    "median": (np.median, "percentile"),
    "iqm": (_iqm_along, "percentile"),
}


def bootstrap_interval(
    values: Values, confidence: float = CONFIDENCE, *, statistic: str = "mean", seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Return the bootstrap interval over seeds; ``statistic`` is mean (BCa), median or iqm (percentile).

    Whole values are drawn: fed differences, it is a paired bootstrap. Below about 20 values it covers too little, and
    ``t_interval``, ``median_interval`` and ``iqm_interval`` cover better. Source: Efron and Tibshirani (1993), ch. 13
    and 14.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 3 or not np.all(np.isfinite(values)):
        return UNKNOWN
    low, high = bootstrap_ends(values, statistic, confidence=confidence, rng=np.random.default_rng(seed))
    return Interval(float(low), float(high))


def bootstrap_ends(
    samples: np.ndarray,
    statistic: str,
    *,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator,
    method: str | None = None,
    n_resamples: int = BOOTSTRAP_RESAMPLES,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the bootstrap intervals of many samples at once, each along the last axis."""
    function, default = _BOOTSTRAPPED[statistic]
    equal = np.ptp(samples, axis=-1) == 0
    if np.all(equal):
        return samples[..., 0], samples[..., 0]
    found = scipy.stats.bootstrap(
        (samples,),
        function,
        axis=-1,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=n_resamples,
        method=method or default,
        rng=rng,
    ).confidence_interval
    return np.where(equal, samples[..., 0], found.low), np.where(equal, samples[..., 0], found.high)


def wilson(successes: Values, n: int, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's score interval of a share: its mean coverage is nominal, its coverage at single shares is not.

    Source: Wilson (1927), JASA 22:209; Brown, Cai and DasGupta (2001), Statistical Science 16:101, eq. (4).
    """
    x = np.asarray(successes, dtype=float)
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    centre = (x + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(x * (n - x) / n + z * z / 4)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def clopper_pearson(successes: Values | float, n: int, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact interval of a share, by quantiles of the beta distribution; its coverage is at least nominal.

    ``successes`` may be half a number (ties). Source: Clopper and Pearson (1934), Biometrika 26:404.
    """
    x = np.asarray(successes, dtype=float)
    tail = (1 - confidence) / 2
    low = np.where(x > 0, scipy.special.betaincinv(np.maximum(x, 0.5), n - x + 1, tail), 0.0)
    high = np.where(x < n, scipy.special.betaincinv(x + 1, np.maximum(n - x, 0.5), 1 - tail), 1.0)
    return low, high
