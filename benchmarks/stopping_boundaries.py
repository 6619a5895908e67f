"""Boundaries that were compared with the one of reports.statistics.sequential: each from alpha to limits of t.

The limits are those of the looks at_least … at_most, alpha is one-sided. `benchmarks/stopping.py` compares them.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

from reports.statistics import t_boundary
from reports.statistics.sequential import AT_LEAST, AT_MOST, crossing_probability


def constant_level(alpha: float) -> np.ndarray:
    return t_boundary(alpha)


def union(alpha: float) -> np.ndarray:
    """Return the boundary of the same shape by the union bound: the nominal level is alpha over the number of looks."""
    looks = np.arange(AT_LEAST, AT_MOST + 1)
    return -scipy.special.stdtrit(looks - 1, alpha / len(looks))


def early_spending(alpha: float, power: float = 1.0) -> np.ndarray:
    """Return the exact boundary whose nominal levels are in proportion to n ** -power."""
    looks = np.arange(AT_LEAST, AT_MOST + 1)
    total = alpha
    for _ in range(8):
        limits = -scipy.special.stdtrit(looks - 1, total * looks**-power / np.sum(looks**-power))
        total *= alpha / crossing_probability(limits, AT_LEAST)
    return limits


def t_mixture(alpha: float, width: float = 3.0) -> np.ndarray:
    """Return where the e-process of a normal mixture over mean/sd, N(0, width²), reaches 1/(2 alpha).

    One-sided by halving. Source: Wang and Ramdas (2025), arXiv:2310.03722, the test martingale in a reduced filtration.
    """

    def reach(n: int) -> float:
        k, freedom = 1 + n * width**2, n - 1

        def log_e(log_t: float) -> float:
            square = 2 * log_t - math.log(freedom)
            ratio = np.logaddexp(0, square) - np.logaddexp(0, square - math.log(k))
            return float(n * ratio - math.log(k)) / 2 + math.log(2 * alpha)

        return math.exp(scipy.optimize.brentq(log_e, -5, 60)) if log_e(60) > 0 else math.inf

    return np.array([reach(n) for n in range(AT_LEAST, AT_MOST + 1)])


def lai(alpha: float) -> np.ndarray:
    """Return the boundary of Lai's flat mixture from the first look on. Source: Lai (1976), Ann. Statist. 4:265."""
    freedom = AT_LEAST - 1

    def spent(log_b: float) -> float:
        b = math.exp(log_b)
        return float(scipy.stats.t.sf(b, freedom) + b * scipy.stats.t.pdf(b, freedom)) - alpha

    b = math.exp(scipy.optimize.brentq(spent, -3, 30))
    log_a = AT_LEAST * math.log1p(b * b / freedom) - math.log(AT_LEAST)
    looks = np.arange(AT_LEAST, AT_MOST + 1)
    return np.sqrt((looks - 1) * np.expm1((log_a + np.log(looks)) / looks))


def one_look_only(alpha: float) -> np.ndarray:
    return -scipy.special.stdtrit(np.arange(AT_LEAST, AT_MOST + 1) - 1, alpha)


BOUNDARIES: dict[str, Callable[[float], np.ndarray]] = {
    "one nominal level, exact ★": constant_level,
    "levels ∝ 1/n, exact": early_spending,
    "one nominal level, union bound": union,
    "t mixture, N(0, 3²)": t_mixture,
    "Lai's flat mixture": lai,
    "a t test at each look (invalid)": one_look_only,
}


def sign_limits(alpha: float) -> np.ndarray:
    """Return, for n = 1 … at_most, the wins from which a sign e-process exceeds 1/alpha; n + 1 where none do.

    A uniform mixture over P(win) in (½, 1) against P(win) ≤ ½: valid for differences of any distribution.
    """
    limits = []
    for n in range(1, AT_MOST + 1):
        wins = np.arange(n + 1)
        upper = scipy.special.betaincc(wins + 1, n - wins + 1, 0.5)
        log_e = (n + 1) * math.log(2) + scipy.special.betaln(wins + 1, n - wins + 1) + np.log(upper)
        limits.append(int(np.argmax(log_e >= -math.log(alpha))) if log_e[-1] >= -math.log(alpha) else n + 1)
    return np.array(limits)
