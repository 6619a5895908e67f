"""Each setting by itself: its metrics, its level, their intervals. Pure functions of the tidy frame."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.contract import stored_run as names
from reports.contract.errors import ReportError
from reports.store.frame import WORST

NATS = "nats"
SETTING = ["setting", "device"]
DESCRIPTION = ["setting", "device", "estimator", "estimator_label", "schedule_label", "axes"]


@dataclass(frozen=True)
class Metric:
    """A final metric; ``compared`` if lower is better and a baseline makes sense."""

    name: str
    title: str
    meaning: str
    compared: bool = True
    unit: str = NATS
    digits: int = 2  # decimals

    @property
    def in_nats(self) -> bool:
        """Whether a band of equivalence in nats makes sense."""
        return self.unit == NATS

    @property
    def per(self) -> str:
        """The unit of a value: ``nats per example``."""
        return f"{NATS} per example" if self.in_nats else self.unit

    @property
    def axis(self) -> str:
        """The label of an axis: the name and the unit."""
        return f"{self.name}, {self.per}" if self.unit else self.name


_HIGHER_IS_BETTER = ("images_per_s", "cosine", "cosine_low", "cosine_high", "snr", "compiled")
_UNITS = ((names.TIME_PREFIX, "s"), (names.MEMORY_PREFIX, "MB"), (names.ENTROPY, NATS))
_NO_NATS = (
    names.TIME_PREFIX,
    names.MEMORY_PREFIX,
    names.COST_PREFIX,
    names.LATENT_PREFIX,
    names.GRADIENT_PREFIX,
    "compiled",
    "tau",
)


def _asked(runs: pd.DataFrame, name: str) -> Metric:
    """Return a metric that is not one of the usual, with its unit and the decimals that fit its size."""
    unit = next((unit for start, unit in _UNITS if name.startswith(start)), "")
    unit = unit if name.startswith(_NO_NATS) else NATS
    size = float(runs[name].abs().median())
    digits = min(12, max(2, 3 - math.floor(math.log10(size)))) if unit != NATS and size > 0 else 2
    return Metric(name, name, "asked for with --metric; lower is taken for better", True, unit, digits)


def metrics(runs: pd.DataFrame, first: str | None = None) -> list[Metric]:
    """Return the final metrics that at least one run has, most important first; ``first`` before them, if given.

    Raises ReportError where no run has that one.
    """
    k = bound_samples(runs)
    known = [
        Metric(names.TEST_NEG_ELBO, "Negative ELBO", "one-hot samples, test images: what the model is used as"),
        Metric(names.TEST_NEG_BOUND, f"Negative bound, k = {k}", f"importance-weighted with k = {k} one-hot samples"),
        Metric(names.TEST_RELAXED_LOSS, "Relaxed loss", "test images with the relaxed codes seen in training"),
        Metric(names.TEST_GAP, "Soft/hard gap", "negative ELBO − relaxed loss: what rounding costs", False),
    ]
    there = [metric for metric in known if metric.name in runs and runs[metric.name].notna().any()]
    if first is None:
        return there
    others = [metric for metric in there if metric.name != first]
    if len(others) < len(there):
        return [*(metric for metric in there if metric.name == first), *others]
    metrics = sorted(str(name) for name in runs.columns if "/" in str(name) and runs[name].notna().any())
    metrics = [name for name in metrics if not name.endswith(_HIGHER_IS_BETTER)]
    if first not in metrics:
        near = difflib.get_close_matches(first, metrics, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        listed = ", ".join(metrics) or "none, as no run finished"
        raise ReportError(f"--metric: expected one of {listed}; got '{first}'.{hint}")
    return [_asked(runs, first), *others]


def bound_samples(runs: pd.DataFrame) -> str:
    """Return k of the importance-weighted bound, from the configuration; several if the runs differ."""
    if names.PARAM_BOUND_SAMPLES not in runs:
        return "?"
    numbers = pd.to_numeric(runs[names.PARAM_BOUND_SAMPLES], errors="coerce")
    return ", ".join(f"{k:g}" for k in sorted(set(numbers.dropna()))) or "?"


def levels(runs: pd.DataFrame, metric: str, *, bad_is_worst: bool = True) -> pd.DataFrame:
    """Return one row per setting and device, best first.

    ``n`` runs have a number, ``n_bad`` failed or diverged. mean, low and high (t interval) are of the n; median and IQM
    count the bad ones as worst (``inf``), unless told not to. A setting with a bad run ranks after the others,
    the larger its share the later.
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
            **_named("median", st.median_interval(ranked) if len(ranked) else st.UNKNOWN),
            **_named("iqm", st.iqm_interval(ranked)),
        }
        counts = {"n": len(values), "n_bad": n_bad, "n_planned": len(group)}
        rows.append(dict(zip(DESCRIPTION, key, strict=True)) | counts | numbers)
    frame = pd.DataFrame(
        rows, columns=[*DESCRIPTION, "n", "n_bad", "n_planned", "mean", "median", "iqm", "low", "high", *_RANKED]
    )
    bad = frame["n_bad"] / (frame["n"] + frame["n_bad"]).clip(lower=1)
    order = pd.DataFrame({"none": frame["n"].eq(0), "bad": bad, "mean": frame["mean"]})
    return frame.loc[order.sort_values(["none", "bad", "mean"], kind="stable").index].reset_index(drop=True)


_RANKED = ("median_low", "median_high", "iqm_low", "iqm_high")


def _named(name: str, interval: st.Interval) -> dict[str, float]:
    return {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _finished(group: pd.DataFrame, metric: str) -> np.ndarray:
    values = group.loc[group["status"] == names.FINISHED, metric] if metric in group else pd.Series(dtype=float)
    return values.dropna().to_numpy(dtype=float)
