"""Comparisons of settings. `levels.py` has each setting, `differences.py` each against the baseline."""

from reports.comparison.differences import (
    Baseline,
    Pairs,
    ValuesBySeed,
    by_seed,
    choose_baseline,
    counterparts,
    described,
    difference_points,
    differences,
    paired_values,
    pairs,
    to_pairs,
)
from reports.comparison.levels import DESCRIPTION, SETTING, levels
from reports.comparison.metrics import Metric, bound_samples, curve_metric, metric_of, metrics
from reports.comparison.own_settings import own_settings

__all__ = [
    "DESCRIPTION",
    "SETTING",
    "Baseline",
    "Metric",
    "Pairs",
    "ValuesBySeed",
    "bound_samples",
    "by_seed",
    "choose_baseline",
    "counterparts",
    "curve_metric",
    "described",
    "difference_points",
    "differences",
    "levels",
    "metric_of",
    "metrics",
    "own_settings",
    "paired_values",
    "pairs",
    "to_pairs",
]
