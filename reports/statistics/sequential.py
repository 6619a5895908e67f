"""Student's t looked at again and again: a boundary that holds at every look at once, and its intervals.

A sweep that stops when its answer is known looks at the same paired differences after each of the seeds ``at_least`` to
``at_most``. Intervals that are made for one look leave the truth out at some look far too often: one in five of nominal
95 %. These hold at all looks together, whenever the sweep stops and for whatever reason. The probability is exact for
independent, normal differences. Choice and comparison with e-processes: docs/decisions/019.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.special

from reports.statistics.intervals import CONFIDENCE, UNKNOWN, Interval, Values

AT_LEAST = 3
AT_MOST = 30
_STATES, _NODES = 200, 32  # of the recursion over looks: its relative error is below 1 %, which is held back
_HELD_BACK = 0.01
_TOLERANCE = 1e-3
Ends = tuple[np.ndarray, np.ndarray]


def sequential_interval(
    values: Values,
    confidence: float = CONFIDENCE,
    *,
    at_least: int = AT_LEAST,
    at_most: int = AT_MOST,
    comparisons: int = 1,
) -> Interval:
    """Return an interval of the mean that holds at all looks n = at_least … at_most at once: x̄ ± c(n) s/√n.

    ``values`` are those of one setting, or paired differences; n is their number. Each end fails at any look with
    probability (1 − confidence)/2, divided by ``comparisons`` where so many intervals shall hold together. Unknown
    below ``at_least`` values and with a failed run. Raises ValueError for more than ``at_most`` values and as
    ``t_boundary`` does. Source: repeated confidence intervals, Jennison and Turnbull (1989), JRSS B 51:305.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    boundary = t_boundary((1 - confidence) / 2 / comparisons, at_least, at_most)
    if n > at_most:
        raise ValueError(f"values: expected at most {at_most}, the last look, got {n}. Give the at_most of the sweep.")
    if n < at_least or not np.all(np.isfinite(values)):
        return UNKNOWN
    half = float(boundary[n - at_least]) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


@functools.lru_cache(maxsize=256)
def t_boundary(alpha: float, at_least: int = AT_LEAST, at_most: int = AT_MOST) -> np.ndarray:
    """Return c(n), n = at_least … at_most: P(tₙ > c(n) at any of these n) = ``alpha`` where the mean is 0.

    tₙ = √n x̄/s of the first n values, independent and normal. c(n) is the quantile of Student's t with n − 1 degrees of
    freedom at one nominal level for all n, which makes the probability what it shall be. It is less at a mean below 0.
    Raises ValueError unless 0 < alpha ≤ 0.1 and 2 ≤ at_least ≤ at_most.
    Source: Pocock (1977), Biometrika 64:191; for t, Jennison and Turnbull (1991), Biometrika 78:133.
    """
    if not 0 < alpha <= 0.1:
        raise ValueError(f"alpha: expected 0 < alpha <= 0.1, got {alpha}.")
    if not 2 <= at_least <= at_most:
        raise ValueError(f"at_least: expected 2 <= at_least <= at_most, got {at_least} and at_most {at_most}.")
    freedom = np.arange(at_least, at_most + 1) - 1
    nominal, ratio = alpha, math.inf
    while abs(ratio - 1) > _TOLERANCE:
        limits = -scipy.special.stdtrit(freedom, nominal)
        ratio = crossing_probability(limits, at_least) / (alpha * (1 - _HELD_BACK))
        nominal /= ratio  # the probability is nearly in proportion to the level
    limits.setflags(write=False)
    return np.asarray(limits)


def crossing_probability(limits: np.ndarray, at_least: int) -> float:
    """Return P(tₙ > limits[n − at_least] at any n from ``at_least`` on) of independent normal values with mean 0.

    The limits are above 1. Let Rₙ = Σx / √Σx². Then Rₙ₊₁ = (Rₙ + u)/√(1 + u²) with u = xₙ₊₁/√Σx², which is independent
    of R₁ … Rₙ, and √n·u has Student's t distribution with n degrees of freedom. So the looks are a Markov chain of one
    number: the angle φ with Rₙ = √n sin φ, of which tₙ = √(n−1) tan φ. P(crossing later | φ) is computed backwards.
    """
    looks = np.arange(at_least, at_least + len(limits))
    ends = np.arctan(limits / np.sqrt(looks - 1))
    states, later, bend = np.array([-math.pi / 2, ends[-1]]), np.zeros(2), math.inf
    for n, end, next_end in zip(looks[-2::-1], ends[-2::-1], ends[:0:-1], strict=True):
        here = end - (end + math.pi / 2) * (1 - np.sin(np.linspace(0, math.pi / 2, _STATES)))
        level = math.sqrt(n + 1) * math.sin(next_end)
        later = _cross_after(here, int(n), level, bend, states, later)
        states, bend = here, math.sqrt(level * level - 1)
    first_bend = min(math.asin(min(bend / math.sqrt(at_least), 1)), ends[0])
    angle, weight = _quadrature(np.array([-math.pi / 2, first_bend]), np.array([first_bend, ends[0]]))
    at_once = float(scipy.special.stdtr(at_least - 1, -limits[0]))
    return at_once + float(np.sum(weight * _angle_density(angle, at_least - 2) * np.interp(angle, states, later)))


def _cross_after(
    here: np.ndarray, n: int, level: float, bend: float, states: np.ndarray, later: np.ndarray
) -> np.ndarray:
    """Return P(crossing after look n | state) at the states ``here`` of look n.

    ``later`` is the same at the ``states`` of look n + 1, where Rₙ₊₁ > ``level`` is a crossing; it bends like a square
    root at Rₙ₊₁ = ``bend``. With u = tan a and R = tan b, Rₙ₊₁ = √(1 + R²) sin(a + b) is above a level between two
    angles a.
    """
    r = math.sqrt(n) * np.sin(here)

    def angles(height: float) -> Ends:
        rise = np.arcsin(np.minimum(height / np.sqrt(1 + r * r), 1))
        low, high = (np.clip(a - np.arctan(r), -math.pi / 2, math.pi / 2) for a in (rise, math.pi - rise))
        return low, high

    (low, high), (low_bend, high_bend) = angles(level), angles(min(bend, level))
    edge = np.full_like(r, math.pi / 2)
    a, weight = _quadrature(np.array([-edge, low_bend, high, high_bend]), np.array([low_bend, low, high_bend, edge]))
    sine = (r[:, None] * np.cos(a) + np.sin(a)) / math.sqrt(n + 1)
    after = np.interp(np.arcsin(np.clip(sine, -1, 1)), states, later)
    at_once = _above(low, n) - _above(high, n)
    return np.asarray(at_once + np.sum(weight * _angle_density(a, n - 1) * after, axis=(0, 2)))


def _above(angle: np.ndarray, n: int) -> np.ndarray:
    """Return P(u > tan angle), where √n·u has Student's t distribution with n degrees of freedom."""
    return np.asarray(scipy.special.stdtr(n, -math.sqrt(n) * np.tan(angle)))


def _angle_density(angle: np.ndarray, power: int) -> np.ndarray:
    """Return the density on (−π/2, π/2) in proportion to cos(angle) ** power."""
    return np.asarray(np.cos(angle) ** power / scipy.special.beta(0.5, (power + 1) / 2))


def _quadrature(low: np.ndarray, high: np.ndarray) -> Ends:
    """Return nodes and weights of a quadrature from ``low`` to ``high``, on a new last axis."""
    nodes, weights = _rule()
    width = (high - low)[..., None]
    return low[..., None] + width * nodes, width * weights


@functools.cache
def _rule() -> Ends:
    """Return Gauss and Legendre's rule for x = sin²(πs/2), s from 0 to 1, for square roots at either end."""
    s, weights = np.polynomial.legendre.leggauss(_NODES)
    s, weights = (1 + s) / 2, weights / 2
    return np.sin(math.pi * s / 2) ** 2, weights * math.pi / 2 * np.sin(math.pi * s)
