"""Many settings at once: who beats whom, ranks over blocks, and the Pareto front. Lower is better throughout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from reports.statistics.intervals import CONFIDENCE
from reports.statistics.paired import holm, paired_differences, power_floor, wilcoxon

LEAST_BLOCKS = 6


@dataclass(frozen=True)
class WinMatrix:
    """Every setting (row) against every other (column) at the seeds that both have; each field has shape (k, k).

    - ``share``: P(row beats column), ties half; ``n``: pairs
    - ``mean``, ``low``, ``high``: difference row − column where both finished, and its t interval
    - ``p_holm``: Wilcoxon with Holm over all pairs that were tested; ``floor``: the smallest p before Holm at n pairs

    NaN on the diagonal and where there is no pair; n is 0 there.
    """

    share: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_holm: np.ndarray
    floor: np.ndarray

    @property
    def holm_floor(self) -> float:
        """The smallest Holm p that any pair could have, whatever the data: least floor × comparisons; NaN of none."""
        floors = self.floor[np.triu_indices(len(self.floor), 1)]
        floors = floors[~np.isnan(floors)]
        return min(1.0, float(floors.min()) * len(floors)) if len(floors) else math.nan


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
    floors = np.array([power_floor(int(pairs)) if pairs else math.nan for pairs in n])
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
        floor=square(floors, floors),
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


def average_ranks(table: np.ndarray) -> np.ndarray:
    """Return the mean rank of each method over the blocks (rows of ``table``).

    1 is best, ties get mid-ranks, ``inf`` is worst.

    Blocks are independent (data sets, not seeds: average the seeds first). Source: Friedman (1937), JASA 32:675.
    """
    table = np.asarray(table, dtype=float)
    return scipy.stats.rankdata(table, axis=1).mean(axis=0) if len(table) else np.full(table.shape[1:], math.nan)


def friedman(table: np.ndarray) -> float:
    """Return p of Friedman's test that all methods (columns) rank alike over blocks (rows); NaN below two of either.

    χ² = 12N/(k(k+1)) Σⱼ (R̄ⱼ − (k+1)/2)² with k−1 degrees of freedom, corrected for ties. The χ² form and not Iman and
    Davenport's F, which rejects up to 7 % of true nulls at few blocks: benchmarks/results/coverage.md.
    Source: Friedman (1937), JASA 32:675; Demšar (2006), JMLR 7:1, §3.2.2.
    """
    table = np.asarray(table, dtype=float)
    n_blocks, k = table.shape
    if n_blocks < 2 or k < 2:
        return math.nan
    deviations = scipy.stats.rankdata(table, axis=1) - (k + 1) / 2
    spread = float(np.sum(deviations**2)) / (n_blocks * (k - 1))  # k(k+1)/12 where nothing ties
    if spread == 0:
        return 1.0
    return float(scipy.stats.chi2.sf(n_blocks * np.sum(deviations.mean(axis=0) ** 2) / spread, k - 1))


def critical_difference(n_methods: int, n_blocks: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of two average ranks: q_α(k, ∞)/√2 · √(k(k+1)/6N), q the studentised range.

    ValueError below six blocks: seeds are replicates, not blocks. Source: Nemenyi (1963); Demšar (2006), §3.2.2.
    """
    if n_blocks < LEAST_BLOCKS:
        raise ValueError(
            f"n_blocks: expected >= {LEAST_BLOCKS} independent blocks, got {n_blocks}. Show the ranks alone."
        )
    if n_methods < 2:
        raise ValueError(f"n_methods: expected >= 2, got {n_methods}.")
    q = float(scipy.stats.studentized_range.ppf(1 - alpha, n_methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks))


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Whether each row of ``points`` (n, d) is on the Pareto front: no row is as good in every column, better in one.

    Equal rows are on it together. A row with NaN or an infinity is never on it and dominates nothing.
    """
    points = np.asarray(points, dtype=float)
    front: np.ndarray = np.isfinite(points).all(axis=1)
    there = points[front]
    beaten = [bool(np.any(np.all(there <= row, axis=1) & np.any(there < row, axis=1))) for row in there]
    front[front] = ~np.array(beaten, dtype=bool)
    return front
