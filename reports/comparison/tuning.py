"""What a search over settings found: the trials of each competitor, its best one, and what tuning gained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison.metrics import Metric
from reports.contract.stored_run import FINISHED
from reports.store.tuning import Tuning

BORDER = 0.05
"""A best value within this share of an interval from its end is at the border."""


def scores(trials: pd.DataFrame, validation: str, sign: int) -> pd.Series:
    """Return the value of each trial, lower is better; ``inf`` for one that did not finish."""
    values = trials[validation].astype(float) if validation in trials else pd.Series(math.inf, index=trials.index)
    return (sign * values).where((trials["status"] == FINISHED) & values.notna(), math.inf)


def column(path: str) -> str:
    """Return the column of a searched setting: a parameter of an estimator has the name ``estimator.<parameter>``."""
    return f"estimator.{path.partition('].')[2]}" if path.startswith("estimators[") else path


def chosen(tuning: Tuning, validation: str, sign: int) -> pd.DataFrame:
    """Return one row per competitor, best first: its best trial, and what its median trial loses.

    ``best`` and ``median`` are values of the measure; ``border`` names the searched settings whose best value is at an
    end of its interval.
    """
    rows = []
    trials = tuning.trials.assign(score=scores(tuning.trials, validation, sign))
    for competitor, group in trials.groupby("competitor", sort=True):
        ordered = group.sort_values(["score", "trial"], kind="stable")
        first = ordered.iloc[0]
        finite = np.isfinite(group["score"])
        if not finite.any():
            continue
        median = float(np.median(group["score"]))
        rows.append({
            "competitor": str(competitor),
            "estimator": str(first["estimator"]),
            "trial": int(first["trial"]),
            "n_trials": len(group),
            "n_failed": int((~finite).sum()),
            "best": sign * float(first["score"]),
            "median": sign * median,
            "loss": median - float(first["score"]),
            "values": {path: first.get(column(path)) for path in tuning.space if _has(group, path)},
            "border": [path for path in tuning.space if _at_border(first.get(column(path)), tuning.space[path])],
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(key=sign * frame["best"]).sort_values("key", kind="stable").drop(columns="key")


def _has(group: pd.DataFrame, path: str) -> bool:
    of = path[len("estimators[") :].partition("]")[0] if path.startswith("estimators[") else None
    is_mine = of is None or of == group["estimator"].iloc[0]
    return is_mine and column(path) in group and bool(group[column(path)].notna().any())


def _at_border(value: Any, searched: Mapping[str, Any]) -> bool:
    """Return whether a value is at an end of an interval that is searched, on its scale."""
    low, high = searched.get("low"), searched.get("high")
    if not (isinstance(value, int | float) and isinstance(low, int | float) and isinstance(high, int | float)):
        return False
    is_log = searched.get("scale") == "log"
    if not low < high or (is_log and not (low > 0 and value > 0)):
        return False
    ends = [math.log(one) if is_log else float(one) for one in (low, high, value)]
    share = (ends[2] - ends[0]) / (ends[1] - ends[0])
    return min(share, 1 - share) < BORDER


def gained(runs: pd.DataFrame, tuning: Tuning, metric: Metric) -> pd.DataFrame:
    """Return one row per competitor, best tuned mean first: default and tuned, their ranks, and the paired difference.

    Lower ranks are better. A competitor whose default is what was chosen has the same runs on both sides.
    """
    rows = []
    for competitor, tuned in runs[runs["status"] == FINISHED].groupby("competitor", sort=True):
        mine = by_seed(tuned, metric)
        of_default = tuning.defaults[tuning.defaults["competitor"] == competitor] if len(tuning.defaults) else tuned
        default = by_seed(of_default[of_default["status"] == FINISHED], metric) if len(of_default) else dict(mine)
        shared = sorted(mine.keys() & default.keys())
        differences = [mine[seed] - default[seed] for seed in shared]
        interval = st.t_interval(differences) if len(differences) > 2 else st.Interval(math.nan, math.nan)
        rows.append({
            "competitor": str(competitor),
            "estimator": str(tuned["estimator"].iloc[0]),
            "tuned": st.mean(list(mine.values())),
            "default": st.mean(list(default.values())),
            "difference": st.mean(differences),
            "low": interval.low,
            "high": interval.high,
            "n": len(shared),
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    for name in ("tuned", "default"):
        frame[f"{name}_rank"] = (metric.sign * frame[name]).rank(method="min").astype("Int64")
    return frame.sort_values(["tuned_rank", "competitor"], kind="stable").reset_index(drop=True)


def by_seed(runs: pd.DataFrame, metric: Metric) -> dict[int, float]:
    """Return the values of a metric by seed."""
    if metric.name not in runs:
        return {}
    pairs = zip(runs["seed"], runs[metric.name].astype(float), strict=True)
    return {int(seed): value for seed, value in pairs if not math.isnan(value)}


def best_so_far(values: Sequence[float], most: int) -> list[st.BestOfTrials]:
    """Return the best of 1, 2, … ``most`` trials."""
    return [st.expected_best(values, n) for n in range(1, most + 1)]
