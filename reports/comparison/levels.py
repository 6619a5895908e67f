"""Each setting by itself: its level and their intervals. Pure functions of the tidy frame."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison.metrics import Metric, metric_of
from reports.contract import stored_run as names
from reports.store.frame import WORST

SETTING = ["setting", "device"]
DESCRIPTION = ["setting", "device", "estimator", "estimator_label", "schedule_label", "axes"]


def levels(runs: pd.DataFrame, metric: Metric | str) -> pd.DataFrame:
    """Return one row per setting and device, best first.

    ``n`` runs have a number, ``n_bad`` failed or diverged. mean, low and high (t interval) are of the n; median and IQM
    count the bad ones as worst, ``inf``, or ``-inf`` where higher is better, unless the metric is not compared. A
    setting with a bad run ranks after the others, the larger its share the later.
    """
    metric, rows = metric_of(runs, metric), []
    for key, group in runs.groupby(DESCRIPTION, sort=True, dropna=False):
        values = metric.sign * _finished(group, metric.name)
        n_bad = int(group["status"].isin(WORST).sum())
        ranked = np.append(values, np.full(n_bad * metric.compared, math.inf))
        interval = metric.turned(st.t_interval(values))
        numbers = {
            "mean": metric.sign * st.mean(values),
            "median": metric.sign * st.median(ranked),
            "iqm": metric.sign * st.iqm(ranked),
            "low": interval.low,
            "high": interval.high,
            **_named("median", metric.turned(st.median_interval(ranked) if len(ranked) else st.UNKNOWN)),
            **_named("iqm", metric.turned(st.iqm_interval(ranked))),
        }
        counts = {"n": len(values), "n_bad": n_bad, "n_planned": len(group)}
        rows.append(dict(zip(DESCRIPTION, key, strict=True)) | counts | numbers)
    frame = pd.DataFrame(
        rows, columns=[*DESCRIPTION, "n", "n_bad", "n_planned", "mean", "median", "iqm", "low", "high", *_RANKED]
    )
    bad = frame["n_bad"] / (frame["n"] + frame["n_bad"]).clip(lower=1)
    order = pd.DataFrame({"none": frame["n"].eq(0), "bad": bad, "mean": metric.sign * frame["mean"]})
    return frame.loc[order.sort_values(["none", "bad", "mean"], kind="stable").index].reset_index(drop=True)


_RANKED = ("median_low", "median_high", "iqm_low", "iqm_high")


def _named(name: str, interval: st.Interval) -> dict[str, float]:
    return {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _finished(group: pd.DataFrame, metric: str) -> np.ndarray:
    values = group.loc[group["status"] == names.FINISHED, metric] if metric in group else pd.Series(dtype=float)
    return values.dropna().to_numpy(dtype=float)
