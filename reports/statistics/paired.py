"""One method against one baseline at the same seeds. Lower is better: a negative difference is an improvement.

Differences are ``method − baseline`` per seed. A failed or diverged run has no number; where ranks or signs are all
that is needed it is ``inf``, the worst.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.stats

from reports.statistics.intervals import CONFIDENCE, UNKNOWN, Interval, Values, clopper_pearson, t_interval

EXACT_PAIRS = 60  # up to here signed-rank distributions are enumerated, beyond a normal approximation is used


def paired_differences(method: Values, baseline: Values) -> np.ndarray:
    """Return ``method − baseline`` per pair. A failed run is ``inf``; two failed runs of one pair are equal: 0."""
    method, baseline = np.asarray(method, dtype=float), np.asarray(baseline, dtype=float)
    both = np.isposinf(method) & np.isposinf(baseline)
    with np.errstate(invalid="ignore"):
        return np.where(both, 0.0, method - baseline)


def probability_of_improvement(differences: Values) -> float:
    """Return the share of pairs in which the method is better, ties counted half."""
    signs = np.sign(np.asarray(differences, dtype=float))
    return float(np.mean(signs == -1) + 0.5 * np.mean(signs == 0)) if len(signs) else math.nan


def improvement_interval(differences: Values, confidence: float = CONFIDENCE) -> Interval:
    """Return the Clopper-Pearson interval of the probability of improvement, a tie being half a success.

    It is exact, unlike Wilson's, which leaves out ½ at four wins of four, where the sign test gives .125. It excludes ½
    exactly where the two-sided sign test rejects it, from six pairs on, and covers 96 % or more. NaN of nothing.
    """
    differences = np.asarray(differences, dtype=float)
    n = len(differences)
    if n == 0:
        return UNKNOWN
    low, high = clopper_pearson(n * probability_of_improvement(differences), n, confidence)
    return Interval(float(low), float(high))


def power_floor(n_pairs: int) -> float:
    """Return the smallest two-sided p that Wilcoxon's signed-rank test can give at ``n_pairs``: 2 / 2ⁿ."""
    return min(1.0, 2.0 ** (1 - n_pairs))


def _rank_sums(doubled_ranks: np.ndarray) -> np.ndarray:
    """Return P(W = w/2), w = 0, 1, …: the enumerated null distribution of the sum of positive ranks, in half ranks."""
    counts = np.zeros(int(doubled_ranks.sum()) + 1)
    counts[0] = 1.0
    for rank in doubled_ranks:
        counts[rank:] += counts[: len(counts) - rank].copy()
    return np.asarray(counts / counts.sum())


def wilcoxon(differences: Values) -> float:
    """Return the exact two-sided p of Wilcoxon's signed-rank test.

    Zeros are dropped, ties get mid-ranks, ``±inf`` ranks last. The null distribution of the rank sum is enumerated (in
    half ranks, so that ties stay exact) up to 60 pairs; beyond, scipy's normal approximation is used.
    Source: Wilcoxon (1945); Pratt and Gibbons (1981), ch. 3.
    """
    found = np.asarray(differences, dtype=float)
    found = found[found != 0]
    n = len(found)
    if n == 0:
        return 1.0
    ranks = scipy.stats.rankdata(np.abs(found))
    if n > EXACT_PAIRS:
        return float(scipy.stats.wilcoxon(np.sign(found) * ranks, method="approx").pvalue)
    doubled = np.rint(2 * ranks).astype(int)
    share = np.cumsum(_rank_sums(doubled))
    positive = int(doubled[found > 0].sum())
    smaller = min(positive, int(doubled.sum()) - positive)
    return min(1.0, 2 * float(share[smaller]))


def holm(p_values: Values) -> np.ndarray:
    """Return Holm's step-down adjusted p-values, in the given order. Source: Holm (1979).

    NaN stays NaN and is not counted.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p_values), math.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - position) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _walsh_averages(differences: Values) -> np.ndarray:
    """Return (dᵢ + dⱼ)/2 for i ≤ j, sorted."""
    d = np.asarray(differences, dtype=float)
    i, j = np.triu_indices(len(d))
    return np.sort(_midpoint(d[i], d[j]))


def _midpoint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (a + b)/2; ``inf`` and ``−inf`` are equally far from 0, as they are in the ranks: their midpoint is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(a) & (a == -b), 0.0, 0.5 * a + 0.5 * b)


def hodges_lehmann(differences: Values) -> float:
    """Return the Hodges-Lehmann estimate of the median difference: the median of the Walsh averages (dᵢ + dⱼ)/2, i ≤ j.

    It estimates the pseudomedian, which is the median if differences are symmetric. NaN of nothing.
    Source: Hodges and Lehmann (1963), Annals of Mathematical Statistics 34:598.
    """
    averages = _walsh_averages(differences)
    if len(averages) == 0:
        return math.nan
    return float(_midpoint(averages[(len(averages) - 1) // 2], averages[len(averages) // 2]))


def signed_rank_interval(differences: Values, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the (pseudo)median difference: values that the signed-rank test does not reject.

    From the k-th smallest to the k-th largest Walsh average, k the largest with 2 P(W < k) ≤ 1 − confidence. Infinite
    ends where no k is: below six pairs at 95 %. Assumes symmetric differences; a skew costs coverage of the median, see
    ``median_interval``. Source: Tukey (1949); Hollander and Wolfe (1999), §3.3.
    """
    averages = _walsh_averages(differences)
    if len(averages) == 0:
        return UNKNOWN
    k = _walsh_depth(len(differences), confidence)
    return Interval(float(averages[k - 1]), float(averages[-k])) if k else Interval(-math.inf, math.inf)


@functools.lru_cache(maxsize=256)
def _walsh_depth(n: int, confidence: float) -> int:
    if n > EXACT_PAIRS:
        z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
        return max(0, math.floor(n * (n + 1) / 4 - z * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)))
    below = np.cumsum(_rank_sums(np.arange(1, n + 1)))
    return int(np.sum(2 * below <= 1 - confidence + 1e-12))


def equivalence(differences: Values, band: float, confidence: float = CONFIDENCE, *, both_failed: int = 0) -> str:
    """Return the verdict about a band of practical equivalence of ±``band`` nats, which is to be set before looking.

    - "equivalent": two one-sided t tests at level 1 − confidence both reject, that is, the interval of the mean at
      2·confidence − 1 (90 %) lies inside (−band, band). This comes first: a real difference inside the band is
      "equivalent", since the band is what matters.
    - "better", "worse": otherwise, the t interval of the mean at ``confidence`` lies below, above 0. It may reach into
      the band: it says that there is a difference, not that it exceeds the band.
    - "undecided": otherwise, and below two pairs.

    With a failed run there is no mean, so never "equivalent"; "better" or "worse" if Wilcoxon's signed-rank test, which
    ranks failures last, rejects at 1 − confidence. ``both_failed`` of the differences are ties of two failed runs.
    Raises ValueError for a negative band. Source: Schuirmann (1987), J. Pharmacokin. Biopharm. 15:657.
    """
    if not band >= 0:
        raise ValueError(
            f"band: expected a number >= 0, got {band}. Give the smallest difference in nats that matters."
        )
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2:
        return "undecided"
    if both_failed or not np.all(np.isfinite(differences)):
        side = hodges_lehmann(differences) if wilcoxon(differences) <= 1 - confidence + 1e-12 else 0.0
        return _side(side, side)
    inner = t_interval(differences, 2 * confidence - 1)
    if -band < inner.low and inner.high < band:
        return "equivalent"
    outer = t_interval(differences, confidence)
    return _side(outer.low, outer.high)


def _side(low: float, high: float) -> str:
    return "better" if high < 0 else "worse" if low > 0 else "undecided"


def sample_size(differences_sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return the pairs (seeds) that a two-sided paired t test needs to find a mean difference of ``effect`` nats.

    The smallest n ≥ 2 with P(|T| > t(n−1)) ≥ power, T noncentral t with n−1 degrees of freedom and noncentrality
    √n·effect/sd. A spread from few seeds is itself uncertain: from five, its 95 % interval is .6 to 2.9 times itself.
    Raises ValueError for arguments out of range. Source: Cohen (1988), ch. 2; the exact computation of G*Power 3, Faul
    et al. (2007).
    """
    if not (differences_sd >= 0 and math.isfinite(differences_sd)):
        raise ValueError(f"differences_sd: expected a finite number >= 0, got {differences_sd}.")
    if not (effect != 0 and math.isfinite(effect)):
        raise ValueError(f"effect: expected a finite number other than 0, got {effect}.")
    if not 0 < alpha < power < 1:
        raise ValueError(f"power: expected alpha < power < 1, got power {power} and alpha {alpha}.")
    size = math.inf if differences_sd == 0 else abs(effect) / differences_sd
    enough = 2
    while paired_t_power(enough, size, alpha) < power:
        enough *= 2
    low, high = enough // 2, enough  # low is too few pairs, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if paired_t_power(middle, size, alpha) >= power else (middle, high)
    return high


def paired_t_power(n: int, size: float, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test at n pairs.

    ``size`` is the mean difference in standard deviations.
    """
    limit = float(scipy.stats.t.ppf(1 - alpha / 2, n - 1))
    shift = math.sqrt(n) * size
    if shift > 30 + 30 * limit:
        return 1.0
    wrong_side = scipy.stats.nct.cdf(-limit, n - 1, shift) if shift < 5 else 0.0  # below 1e-6; scipy's is NaN at times
    return float(scipy.stats.nct.sf(limit, n - 1, shift) + wrong_side)
