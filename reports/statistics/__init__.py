"""Statistics for few, expensive, paired runs: everything that the report uses, by one name.

Pure functions of numbers; lower is better throughout. Differences are ``method − baseline`` at the same seed, so a
negative difference is an improvement. A failed or diverged run has no number; where a rank is all that is needed it is
``inf``, the worst; NaN never enters. Definitions, sources, coverage and levels: docs/statistics.md.
"""

from reports.statistics.intervals import (
    BOOTSTRAP_RESAMPLES,
    BOOTSTRAP_SEED,
    CONFIDENCE,
    UNKNOWN,
    Interval,
    Values,
    bootstrap_interval,
    clopper_pearson,
    iqm,
    iqm_interval,
    mean,
    median,
    median_interval,
    t_interval,
    wilson,
)
from reports.statistics.paired import (
    equivalence,
    hodges_lehmann,
    holm,
    improvement_interval,
    paired_differences,
    paired_t_power,
    power_floor,
    probability_of_improvement,
    sample_size,
    signed_rank_interval,
    wilcoxon,
)
from reports.statistics.profiles import median_time, performance_profile, profile_band, reached_share, time_to_target
from reports.statistics.racing import Dropped, Race, race
from reports.statistics.ranks import WinMatrix, average_ranks, critical_difference, friedman, pareto_front, win_matrix
from reports.statistics.sequential import AT_LEAST, AT_MOST, sequential_interval, t_boundary
from reports.statistics.trials import BestOfTrials, expected_best, sensitivity
from reports.statistics.welch import Sample, welch_interval

__all__ = [
    "AT_LEAST",
    "AT_MOST",
    "BOOTSTRAP_RESAMPLES",
    "BOOTSTRAP_SEED",
    "CONFIDENCE",
    "UNKNOWN",
    "BestOfTrials",
    "Dropped",
    "Interval",
    "Race",
    "Sample",
    "Values",
    "WinMatrix",
    "average_ranks",
    "bootstrap_interval",
    "clopper_pearson",
    "critical_difference",
    "equivalence",
    "expected_best",
    "friedman",
    "hodges_lehmann",
    "holm",
    "improvement_interval",
    "iqm",
    "iqm_interval",
    "mean",
    "median",
    "median_interval",
    "median_time",
    "paired_differences",
    "paired_t_power",
    "pareto_front",
    "performance_profile",
    "power_floor",
    "probability_of_improvement",
    "profile_band",
    "race",
    "reached_share",
    "sample_size",
    "sensitivity",
    "sequential_interval",
    "signed_rank_interval",
    "t_boundary",
    "t_interval",
    "time_to_target",
    "welch_interval",
    "wilcoxon",
    "wilson",
    "win_matrix",
]
