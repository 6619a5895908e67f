"""Many settings at once: the win matrix and the Pareto front. Lower is better throughout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from reports.statistics.intervals import CONFIDENCE
from reports.statistics.paired import holm, paired_differences, wilcoxon


@dataclass(frozen=True)
class WinMatrix:
    """Every setting (row) against every other (column) at the seeds that both have; each field has shape (k, k).

    - ``share``: P(row beats column), ties half; ``n``: pairs
    - ``mean``, ``low``, ``high``: difference row − column where both finished, and its t interval
    - ``p_holm``: Wilcoxon with Holm over all pairs that were tested

    NaN on the diagonal and where there is no pair; n is 0 there.
    """

    share: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_holm: np.ndarray


def win_matrix(by_seed: Sequence[Mapping[int, float]]) -> WinMatrix:
    """Compare every setting with every other. Each mapping is a setting: seed → value, ``inf`` for a failed run.

    A pair in which both failed is a tie in ``share`` and has no place in ``mean``.
    """
    k = len(by_seed)
    values = _table(by_seed)
    above, below = np.triu_indices(k, 1)
    seeds = ~np.isnan(values[above]) & ~np.isnan(values[below])
    d = np.where(seeds, paired_differences(values[above], values[below]), math.nan)
    n = seeds.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        wins = ((d < 0).sum(axis=1) + 0.5 * (d == 0).sum(axis=1)) / n
    centre, half = _means(np.where(np.isfinite(values[above]) & np.isfinite(values[below]), d, math.nan))
    tested = [wilcoxon(row[there]) if there.any() else math.nan for row, there in zip(d, seeds, strict=True)]
    p_holm = holm(tested)

    def square(upper: np.ndarray, lower: np.ndarray, fill: float = math.nan) -> np.ndarray:
        matrix = np.full((k, k), fill)
        matrix[above, below], matrix[below, above] = upper, lower
        return matrix

    return WinMatrix(
        share=square(wins, 1 - wins),
        n=square(n, n, 0).astype(int),
        mean=square(centre, -centre),
        low=square(centre - half, -centre - half),
        high=square(centre + half, -centre + half),
        p_holm=square(p_holm, p_holm),
    )


def _table(by_seed: Sequence[Mapping[int, float]]) -> np.ndarray:
    """Return settings × seeds, NaN where a setting lacks the seed."""
    columns = {seed: column for column, seed in enumerate(sorted({seed for one in by_seed for seed in one}))}
    values = np.full((len(by_seed), len(columns)), math.nan)
    for row, one in enumerate(by_seed):
        values[row, [columns[seed] for seed in one]] = list(one.values())
    return values


def _means(d: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Return row means without NaN, and the half widths of their t intervals."""
    m = (~np.isnan(d)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.nansum(d, axis=1) / m
        variance = np.nansum((d - centre[:, None]) ** 2, axis=1) / (m - 1)
        half = scipy.stats.t.ppf((1 + confidence) / 2, np.maximum(m - 1, 1)) * np.sqrt(variance / m)
    return np.where(m > 0, centre, math.nan), np.where(m > 1, half, math.nan)


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Return whether each row of ``points`` (n, d) is on the Pareto front: no row is as good everywhere, better once.

    Equal rows are on it together. A row with NaN or an infinity is never on it and dominates nothing.
    """
    points = np.asarray(points, dtype=float)
    front: np.ndarray = np.isfinite(points).all(axis=1)
    there = points[front]
    beaten = [bool(np.any(np.all(there <= row, axis=1) & np.any(there < row, axis=1))) for row in there]
    front[front] = ~np.array(beaten, dtype=bool)
    return front
