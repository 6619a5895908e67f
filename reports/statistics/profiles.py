"""Curves over runs: performance profiles and time to target. Lower is better; a failed run never gets there."""

from __future__ import annotations

import math

import numpy as np

from reports.statistics.intervals import CONFIDENCE, Values, wilson


def performance_profile(values: Values, thresholds: np.ndarray) -> np.ndarray:
    """Return the share of runs with value ≤ threshold, for each threshold; ``inf`` never. NaN of no runs.

    Source: Dolan and Moré (2002), arXiv:cs/0102001; Agarwal et al. (2021), arXiv:2108.13264, §4.2.
    """
    return _reaching(values, thresholds) / len(values) if len(values) else np.full(len(thresholds), math.nan)


def _reaching(values: Values, thresholds: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return np.searchsorted(np.sort(values[values < math.inf]), np.asarray(thresholds, dtype=float), side="right")


def profile_band(
    values: Values, thresholds: np.ndarray, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pointwise band of the performance profile: Wilson's score interval at each threshold. NaN of no runs.

    Each point holds the truth with ``confidence`` on average over thresholds, the whole curve with
    less. A simultaneous band (Dvoretzky-Kiefer-Wolfowitz, ±√(ln 40 / 2n)) is ±.61 at five runs and says nothing there.
    """
    if len(values) == 0:
        return np.full(len(thresholds), math.nan), np.full(len(thresholds), math.nan)
    return wilson(_reaching(values, thresholds), len(values), confidence)


def time_to_target(x: Values, y: Values, target: float) -> float:
    """Return the first x at which y ≤ target, ``inf`` if never. y is read where it was measured, never interpolated."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    there = x[y <= target]
    return float(there.min()) if len(there) else math.inf


def reached_share(times: Values, censored_at: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of runs that have reached the target by x, as a step curve (x, share): one minus Kaplan-Meier's.

    1 − Π over times t ≤ x of (1 − reached at t / at risk at t). ``times`` is ``inf`` for a run that did not reach, and
    ``censored_at`` says until when it was watched (it is not read for the others): the last x for a run that was cut
    short or had a smaller budget; ``inf`` for a failed run, which stays at risk for ever. A run watched until t is at
    risk at t. The curve begins at (0, 0), has a point at each time of reaching, and ends where watching ended; each
    share holds until the next x. Without censoring it is the empirical distribution. No runs: two empty arrays.
    Raises ValueError for lists of different lengths.
    Source: Kaplan and Meier (1958), JASA 53:457; failures at risk for ever: Fine and Gray (1999), JASA 94:496.
    """
    times, censored_at = np.asarray(times, dtype=float), np.asarray(censored_at, dtype=float)
    if len(times) != len(censored_at):
        raise ValueError(f"censored_at: expected {len(times)} values, one a run, got {len(censored_at)}.")
    if len(times) == 0:
        return np.empty(0), np.empty(0)
    reached = times < math.inf
    watched = np.sort(np.where(reached, times, censored_at))
    at, n_reached = np.unique(times[reached], return_counts=True)
    at_risk = len(watched) - np.searchsorted(watched, at, side="left")
    share = _one_minus_products(n_reached, at_risk)
    x, share = np.append(0.0, at), np.append(0.0, share)
    end = watched[watched < math.inf].max(initial=0.0)
    return (np.append(x, end), np.append(share, share[-1])) if end > x[-1] else (x, share)


def _one_minus_products(n_reached: np.ndarray, at_risk: np.ndarray) -> np.ndarray:
    """Return 1 − Π (1 − d/r), rounded to 12 digits: 1 − 2/3 · 3/4 is a half, and a median depends on it."""
    return np.round(1 - np.cumprod((at_risk - n_reached) / at_risk), 12)


def median_time(times: Values, censored_at: Values) -> float:
    """Return the first x at which half of the runs have reached the target, by ``reached_share``.

    It is ``inf`` if the share never does, NaN of no runs.
    """
    x, share = reached_share(times, censored_at)
    if len(x) == 0:
        return math.nan
    there = x[share >= 0.5]
    return float(there[0]) if len(there) else math.inf
