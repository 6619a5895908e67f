"""What the runs say about each setting, and about each against the baseline. Pure functions of the tidy frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.frame import NO_TEMPERATURE, WORST, ReportError

SETTING = ["setting", "device"]
DESCRIPTION = ["setting", "device", "estimator", "estimator_label", "schedule_label", "axes"]


@dataclass(frozen=True)
class Metric:
    """A final metric in nats per example; ``compared`` where lower is better and a baseline makes sense."""

    name: str
    title: str
    meaning: str
    compared: bool = True


def metrics(runs: pd.DataFrame) -> list[Metric]:
    """The final metrics that at least one run has, most important first."""
    k = bound_samples(runs)
    known = [
        Metric("test/neg_elbo", "Negative ELBO", "one-hot samples, test images: what the model is used as"),
        Metric("test/neg_bound", f"Negative bound, k = {k}", f"importance-weighted with k = {k} one-hot samples"),
        Metric("test/relaxed_loss", "Relaxed loss", "test images with the relaxed codes seen in training"),
        Metric("test/soft_hard_gap", "Soft/hard gap", "negative ELBO − relaxed loss: what rounding costs", False),
    ]
    return [metric for metric in known if metric.name in runs and runs[metric.name].notna().any()]


def bound_samples(runs: pd.DataFrame) -> str:
    """k of the importance-weighted bound, from the configuration; several if the runs differ."""
    if "evaluation.bound_samples" not in runs:
        return "?"
    return ", ".join(f"{k:g}" for k in sorted(set(runs["evaluation.bound_samples"].dropna()))) or "?"


def levels(runs: pd.DataFrame, metric: str, *, bad_is_worst: bool = True) -> pd.DataFrame:
    """One row per setting and device, best first.

    ``n`` runs have a number, ``n_bad`` failed or diverged. mean, low and high (t interval) are of the n; median and IQM
    count the bad ones as worst (``inf``), unless told not to. A setting with a bad run ranks after the others.
    """
    rows = []
    for key, group in runs.groupby(DESCRIPTION, sort=True, dropna=False):
        values = _finished(group, metric)
        n_bad = int(group["status"].isin(WORST).sum())
        ranked = np.append(values, np.full(n_bad * bad_is_worst, math.inf))
        interval = st.t_interval(values)
        numbers = {
            "mean": st.mean(values),
            "median": st.median(ranked),
            "iqm": st.iqm(ranked),
            "low": interval.low,
            "high": interval.high,
        }
        counts = {"n": len(values), "n_bad": n_bad, "n_planned": len(group)}
        rows.append(dict(zip(DESCRIPTION, key, strict=True)) | counts | numbers)
    frame = pd.DataFrame(
        rows, columns=[*DESCRIPTION, "n", "n_bad", "n_planned", "mean", "median", "iqm", "low", "high"]
    )
    order = pd.DataFrame({"none": frame["n"].eq(0), "bad": frame["n_bad"].gt(0), "mean": frame["mean"]})
    return frame.loc[order.sort_values(["none", "bad", "mean"], kind="stable").index].reset_index(drop=True)


def _finished(group: pd.DataFrame, metric: str) -> np.ndarray:
    values = group.loc[group["status"] == "finished", metric] if metric in group else pd.Series(dtype=float)
    return values.dropna().to_numpy(dtype=float)


@dataclass(frozen=True)
class Baseline:
    """What the others are compared with: an estimator with its parameters, or one setting of it."""

    label: str
    by: str  # the column that ``label`` is a value of: estimator_label or setting


def choose_baseline(runs: pd.DataFrame, wanted: str | None) -> Baseline:
    """``wanted`` is an estimator, an estimator with parameters, or a setting; else straight_through, else the first."""
    for column in ("setting", "estimator_label", "estimator"):
        if wanted is not None and (runs[column] == wanted).any():
            found = runs.loc[runs[column] == wanted, "estimator_label"]
            return (
                Baseline(wanted, column) if column == "setting" and _several(runs, found) else Baseline(min(found), _BY)
            )
    if wanted is not None:
        there = ", ".join(sorted(set(runs["estimator_label"])))
        raise ReportError(f"baseline: expected one of {there}; got '{wanted}'.")
    default = runs.loc[runs["estimator"] == "straight_through", "estimator_label"]
    return Baseline(min(default) if len(default) else min(runs["estimator_label"]), _BY)


_BY = "estimator_label"


def _several(runs: pd.DataFrame, labels: pd.Series) -> bool:
    return runs.loc[runs["estimator_label"].isin(labels), "setting"].nunique() > 1


def differences(runs: pd.DataFrame, metric: str, baseline: Baseline) -> pd.DataFrame:
    """One row per setting and baseline setting it is paired with: differences by seed, ``setting − baseline``.

    Pairs have the same seed, device and other axes, and the same schedule; an estimator without a temperature is paired
    with every schedule. A failed or diverged run is worst; a run that is missing, skipped or unfinished makes no pair.
    Holm's correction is over all rows.
    """
    rows = [_difference_row(runs, metric, one, other) for one, other in _pairs(runs, baseline)]
    columns = ["setting", "device", "estimator", "estimator_label", "versus", "n_pairs", "n_bad", "mean", "median"]
    columns += ["low", "high", "probability_of_improvement", "p", "floor"]
    frame = pd.DataFrame([row for row in rows if row["n_pairs"]], columns=columns)
    frame["p_holm"] = st.holm(frame["p"].to_numpy(dtype=float))
    frame["n_comparisons"] = len(frame)
    return frame.sort_values(["mean", "setting", "versus"], kind="stable").reset_index(drop=True)


def _pairs(runs: pd.DataFrame, baseline: Baseline) -> Iterator[tuple[pd.Series, pd.Series]]:
    settings = runs[DESCRIPTION].drop_duplicates()
    is_baseline = settings[baseline.by] == baseline.label
    for _, one in settings[~is_baseline].iterrows():
        same = settings[is_baseline & (settings["device"] == one["device"])]
        if baseline.by == _BY:
            same = same[same["axes"] == one["axes"]]
            schedules = {one["schedule_label"], NO_TEMPERATURE}
            if one["schedule_label"] != NO_TEMPERATURE:
                same = same[same["schedule_label"].isin(schedules)]
        for _, other in same.iterrows():
            yield one, other


def paired_values(runs: pd.DataFrame, metric: str, one: pd.Series, other: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values of the seeds that both settings have tried to the end; failed and diverged runs are ``inf``."""
    joined = pd.concat([_by_seed(runs, metric, one), _by_seed(runs, metric, other)], axis=1, join="inner").sort_index()
    return joined.iloc[:, 0].to_numpy(dtype=float), joined.iloc[:, 1].to_numpy(dtype=float)


def _by_seed(runs: pd.DataFrame, metric: str, which: pd.Series) -> pd.Series:
    group = runs[(runs["setting"] == which["setting"]) & (runs["device"] == which["device"]) & runs["seed"].notna()]
    values = group[metric].where(group["status"] == "finished").astype(float)
    values = values.mask(group["status"].isin(WORST), math.inf)
    by_seed: pd.Series = values.set_axis(group["seed"].astype(int)).dropna().groupby(level=0).first()
    return by_seed


def _difference_row(runs: pd.DataFrame, metric: str, one: pd.Series, other: pd.Series) -> dict[str, object]:
    all_pairs = st.paired_differences(*paired_values(runs, metric, one, other))
    finite = all_pairs[np.isfinite(all_pairs)]
    interval = st.t_interval(finite)
    return {
        **{name: one[name] for name in ("setting", "device", "estimator", "estimator_label")},
        "versus": other["setting"],
        "n_pairs": len(all_pairs),
        "n_bad": int(len(all_pairs) - len(finite)),
        "mean": st.mean(finite),
        "median": st.median(all_pairs),
        "low": interval.low,
        "high": interval.high,
        "probability_of_improvement": st.probability_of_improvement(all_pairs),
        "p": st.wilcoxon(all_pairs),
        "floor": st.power_floor(len(all_pairs)),
    }


def difference_points(runs: pd.DataFrame, metric: str, rows: pd.DataFrame) -> list[np.ndarray]:
    """The differences behind each row of ``differences``, one per pair."""
    points = []
    for _, row in rows.iterrows():
        other = pd.Series({"setting": row["versus"], "device": row["device"]})
        points.append(st.paired_differences(*paired_values(runs, metric, row, other)))
    return points
