"""Comparisons of settings. `levels.py` has each setting, `differences.py` each against the baseline."""

from reports.comparison.differences import (
    Baseline,
    Pairs,
    ValuesBySeed,
    by_seed,
    choose_baseline,
    difference_points,
    differences,
    paired_values,
    pairs,
    to_pairs,
)
from reports.comparison.levels import DESCRIPTION, NATS, SETTING, Metric, bound_samples, levels, metrics

__all__ = [
    "DESCRIPTION",
    "NATS",
    "SETTING",
    "Baseline",
    "Metric",
    "Pairs",
    "ValuesBySeed",
    "bound_samples",
    "by_seed",
    "choose_baseline",
    "difference_points",
    "differences",
    "levels",
    "metrics",
    "paired_values",
    "pairs",
    "to_pairs",
]
