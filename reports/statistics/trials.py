"""What a search over settings finds with so many trials, and what it loses where the search is left out.

Lower is better; a failed or diverged trial is ``inf``, the worst. The trials are independent draws (random search).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats

from reports.statistics.intervals import CONFIDENCE, Interval, Values


@dataclass(frozen=True)
class BestOfTrials:
    """The best of ``n`` trials: its expectation and its median over all ways to draw the trials.

    ``interval`` is that of the median. ``mean`` is ``inf`` where n trials may all fail: for n up to the failed trials.
    """

    n: int
    mean: float
    median: float
    interval: Interval


def expected_best(values: Values, n: int, confidence: float = CONFIDENCE) -> BestOfTrials:
    """Return the best of ``n`` of the N = len(values) trials, as estimates for n new trials of the same search.

    The mean is over all subsets of n trials, that is, draws without replacement: Σ v₍ₖ₎ C(N−k, n−1) / C(N, n), which
    is unbiased; draws with replacement (Dodge et al. 2019) are biased towards worse values. The interval of the median
    is exact for every distribution: the best of n is below the p-quantile, p = 1 − 2^(−1/n), with probability ½, and
    so many of N trials are below it as a binomial says. It is open below for n above about N/5, since N trials cannot
    say how much better others would be. Raises ValueError unless 1 ≤ n ≤ N and for NaN.
    Source: Dodge et al. (2019), EMNLP, §3.1; Tang et al. (2020), arXiv:2004.13705; Thompson (1936).
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    total = len(ordered)
    if not 1 <= n <= total:
        raise ValueError(f"n: expected 1 to {total}, the number of trials, got {n}.")
    if np.any(np.isnan(ordered)):
        raise ValueError("values: expected a number or inf for each trial, got nan. Give inf for a failed trial.")
    weights = _chances_of_being_best(total, n)
    there = weights > 0
    below = np.cumsum(weights)
    median = ordered[np.searchsorted(below, 0.5 - 1e-12)]
    return BestOfTrials(n, float(weights[there] @ ordered[there]), float(median), _interval(ordered, n, confidence))


def _chances_of_being_best(total: int, n: int) -> np.ndarray:
    """Return the probability that the k-th best of all trials, k = 1 …, is the best of n of them."""
    k = np.arange(1, total)
    return n / total * np.cumprod(np.append(1.0, np.maximum(total - k - n + 1, 0) / (total - k)))


def _interval(ordered: np.ndarray, n: int, confidence: float) -> Interval:
    """Return the exact interval of the quantile that the best of n is below with probability ½."""
    total = len(ordered)
    tail = (1 - confidence) / 2
    fewer = scipy.stats.binom.cdf(np.arange(total + 1), total, -math.expm1(-math.log(2) / n))
    low, high = int(np.sum(fewer <= tail)), int(np.argmax(fewer >= 1 - tail))
    return Interval(float(ordered[low - 1]) if low else -math.inf, float(ordered[high]) if high < total else math.inf)


def sensitivity(values: Values) -> float:
    """Return what the median trial loses against the best one: their difference, ``inf`` once half of them failed.

    NaN of nothing.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return math.nan
    median = float(np.median(values))
    return median - float(values.min()) if median < math.inf else math.inf
