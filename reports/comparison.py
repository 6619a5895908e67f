"""What the runs say about each setting, and about each against the baseline. Pure functions of the tidy frame."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.frame import WORST, ReportError
from reports.settings import in_quotes, joined

NATS = "nats"
SETTING = ["setting", "device"]
DESCRIPTION = ["setting", "device", "estimator", "estimator_label", "schedule_label", "axes"]


@dataclass(frozen=True)
class Metric:
    """A final metric; ``compared`` where lower is better and a baseline makes sense."""

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
        """What an axis says: the name, and the unit."""
        return f"{self.name}, {self.per}" if self.unit else self.name


_HIGHER_IS_BETTER = ("images_per_s", "cosine", "cosine_low", "cosine_high", "snr", "compiled")
_UNITS = (("time/", "s"), ("memory/", "MB"), ("latent/entropy", NATS))
_NO_NATS = ("time/", "memory/", "cost/", "latent/", "gradient/", "compiled", "tau")


def _asked(runs: pd.DataFrame, name: str) -> Metric:
    """A metric that is none of the usual ones, with its unit and the decimals that its size asks for."""
    unit = next((unit for start, unit in _UNITS if name.startswith(start)), "")
    unit = unit if name.startswith(_NO_NATS) else NATS
    size = float(runs[name].abs().median())
    digits = min(12, max(2, 3 - math.floor(math.log10(size)))) if unit != NATS and size > 0 else 2
    return Metric(name, name, "asked for with --metric; lower is taken for better", True, unit, digits)


def metrics(runs: pd.DataFrame, first: str | None = None) -> list[Metric]:
    """The final metrics that at least one run has, most important first; ``first`` before them, if it is given.

    Raises ReportError where no run has that one.
    """
    k = bound_samples(runs)
    known = [
        Metric("test/neg_elbo", "Negative ELBO", "one-hot samples, test images: what the model is used as"),
        Metric("test/neg_bound", f"Negative bound, k = {k}", f"importance-weighted with k = {k} one-hot samples"),
        Metric("test/relaxed_loss", "Relaxed loss", "test images with the relaxed codes seen in training"),
        Metric("test/soft_hard_gap", "Soft/hard gap", "negative ELBO − relaxed loss: what rounding costs", False),
    ]
    there = [metric for metric in known if metric.name in runs and runs[metric.name].notna().any()]
    if first is None:
        return there
    others = [metric for metric in there if metric.name != first]
    if len(others) < len(there):
        return [*(metric for metric in there if metric.name == first), *others]
    names = sorted(str(name) for name in runs.columns if "/" in str(name) and runs[name].notna().any())
    names = [name for name in names if not name.endswith(_HIGHER_IS_BETTER)]
    if first not in names:
        near = difflib.get_close_matches(first, names, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        there = ", ".join(names) or "none, as no run finished"
        raise ReportError(f"--metric: expected one of {there}; got '{first}'.{hint}")
    return [_asked(runs, first), *others]


def bound_samples(runs: pd.DataFrame) -> str:
    """k of the importance-weighted bound, from the configuration; several if the runs differ."""
    if "evaluation.bound_samples" not in runs:
        return "?"
    numbers = pd.to_numeric(runs["evaluation.bound_samples"], errors="coerce")
    return ", ".join(f"{k:g}" for k in sorted(set(numbers.dropna()))) or "?"


def levels(runs: pd.DataFrame, metric: str, *, bad_is_worst: bool = True) -> pd.DataFrame:
    """One row per setting and device, best first.

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
    values = group.loc[group["status"] == "finished", metric] if metric in group else pd.Series(dtype=float)
    return values.dropna().to_numpy(dtype=float)


@dataclass(frozen=True)
class Baseline:
    """What the others are compared with: an estimator with its parameters, or one setting of it."""

    label: str
    by: str  # the column that ``label`` is a value of: estimator_label or setting


def choose_baseline(runs: pd.DataFrame, wanted: str | None) -> Baseline:
    """``wanted`` is an estimator, an estimator with parameters, or a setting; else straight_through, else the first.

    Raises ReportError for one that no run has, and for an estimator that was run with several sets of parameters.
    """
    if wanted is not None and (found := _wanted(runs, wanted)) is not None:
        return found
    if wanted is not None:
        there = sorted(set(runs["estimator_label"]))
        near = difflib.get_close_matches(wanted, [*there, *sorted(set(runs["setting"]))], 1)
        hint = f" Did you mean '{near[0]}'?" if near else " A whole setting of the report may be given too."
        raise ReportError(f"baseline: expected one of {', '.join(there)}; got '{wanted}'.{hint}")
    default = runs.loc[runs["estimator"] == "straight_through", "estimator_label"]
    return Baseline(min(default) if len(default) else min(runs["estimator_label"]), _BY)


_BY = "estimator_label"


def _wanted(runs: pd.DataFrame, wanted: str) -> Baseline | None:
    """What the text stands for. An estimator's label goes before a setting's text, which may be given in quotes."""
    labels = runs.loc[runs["estimator_label"] == wanted, "estimator_label"]
    parts = zip(runs["estimator_label"], runs["schedule_label"], runs["axes"], strict=True)
    texts = [in_quotes(label, None if pd.isna(schedule) else schedule, axes) for label, schedule, axes in parts]
    is_setting = (runs["setting"] == wanted) | (pd.Series(texts, index=runs.index, dtype=object) == wanted)
    if not len(labels) and is_setting.any():
        row = runs[is_setting].iloc[0]
        several = runs.loc[runs[_BY] == row[_BY], "setting"].nunique() > 1
        return Baseline(str(row["setting"]), "setting") if several else Baseline(str(row[_BY]), _BY)
    if not len(labels):
        labels = runs.loc[runs["estimator"] == wanted, "estimator_label"]
        if labels.nunique() > 1:
            there = ", ".join(sorted(set(labels)))
            raise ReportError(f"baseline: expected one of {there}, as there are several; got '{wanted}'.")
    return Baseline(min(labels), _BY) if len(labels) else None


def differences(runs: pd.DataFrame, metric: str, baseline: Baseline, *, band: float = 0.5) -> pd.DataFrame:
    """One row per setting and baseline setting it is paired with: differences by seed, ``setting − baseline``.

    Pairs have the same seed, device and other axes, and the same schedule; an estimator without a temperature is paired
    with every schedule. A failed or diverged run is worst; a run that is missing, skipped or unfinished makes no pair.
    Holm's correction is over all rows.
    """
    tried = by_seed(runs, metric)
    rows = [_difference_row(tried, one, other, band) for one, other in _pairs(runs, baseline)]
    rows = [{**row, "against": row["against"] if baseline.by == _BY else ""} for row in rows]
    columns = ["setting", "device", "estimator", "estimator_label", "versus", "against", "n_pairs", "n_bad", "mean"]
    columns += ["median", "low", "high", "probability_of_improvement", "improvement_low", "improvement_high"]
    columns += ["equivalence", "p", "floor"]
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
            if not pd.isna(one["schedule_label"]):
                free = same["schedule_label"].isna()
                same = same[free | (same["schedule_label"] == one["schedule_label"])]
        for _, other in same.iterrows():
            yield one, other


Tried = Mapping[tuple[str, str], Mapping[int, float]]
"""By setting and device: the value of every seed that was tried to the end; ``inf`` for failed and diverged runs."""


def by_seed(runs: pd.DataFrame, metric: str) -> Tried:
    """The values that pairs are made from; where a seed was run more than once, its first value."""
    values = runs[metric].where(runs["status"] == "finished").astype(float)
    values = values.mask(runs["status"].isin(WORST), math.inf)
    there = runs["seed"].notna() & values.notna()
    found: dict[tuple[str, str], dict[int, float]] = {}
    rows = runs.loc[there, [*SETTING, "seed"]].itertuples(index=False, name=None)
    for (setting, device, seed), value in zip(rows, values[there].tolist(), strict=True):
        found.setdefault((setting, device), {}).setdefault(int(seed), value)
    return found


class Pairs(NamedTuple):
    """The differences of two settings, one per seed that both have tried to the end, in the order of the seeds."""

    all: np.ndarray  # ``inf`` where one failed; 0, a tie, where both did
    finite: np.ndarray  # of the pairs in which both finished: what means and intervals are of
    both_failed: int

    @property
    def n_bad(self) -> int:
        """Pairs in which a run failed."""
        return len(self.all) - len(self.finite)


def pairs_of(mine: np.ndarray, theirs: np.ndarray) -> Pairs:
    """The differences ``mine − theirs`` of values at the same seeds."""
    every = st.paired_differences(mine, theirs)
    finished = np.isfinite(mine) & np.isfinite(theirs)
    return Pairs(every, every[finished], int(np.sum(np.isinf(mine) & np.isinf(theirs))))


def pairs(tried: Tried, one: tuple[str, str], other: tuple[str, str]) -> Pairs:
    """The differences of two settings, ``one − other``."""
    return pairs_of(*paired_values(tried, one, other))


def paired_values(tried: Tried, one: tuple[str, str], other: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Values of the seeds that both have tried to the end, in the order of the seeds."""
    mine, theirs = tried.get(one, {}), tried.get(other, {})
    seeds = sorted(mine.keys() & theirs.keys())
    return np.array([mine[seed] for seed in seeds], dtype=float), np.array(
        [theirs[seed] for seed in seeds], dtype=float
    )


def _difference_row(tried: Tried, one: pd.Series, other: pd.Series, band: float) -> dict[str, object]:
    pair = (one["setting"], one["device"]), (other["setting"], other["device"])
    found = pairs(tried, *pair)
    all_pairs, finite = found.all, found.finite
    interval, improvement = st.t_interval(finite), st.improvement_interval(all_pairs)
    return {
        **{name: one[name] for name in ("setting", "device", "estimator", "estimator_label")},
        "versus": other["setting"],
        "against": joined(None if pd.isna(other["schedule_label"]) else other["schedule_label"], other["axes"]),
        "n_pairs": len(all_pairs),
        "n_bad": found.n_bad,
        "mean": st.mean(finite),
        "median": st.median(all_pairs),
        "low": interval.low,
        "high": interval.high,
        "probability_of_improvement": st.probability_of_improvement(all_pairs),
        "improvement_low": improvement.low,
        "improvement_high": improvement.high,
        "equivalence": st.equivalence(all_pairs, band, both_failed=found.both_failed),
        "p": st.wilcoxon(all_pairs),
        "floor": st.power_floor(len(all_pairs)),
    }


def difference_points(runs: pd.DataFrame, metric: str, rows: pd.DataFrame) -> list[np.ndarray]:
    """The differences behind each row of ``differences``, one per pair in which both finished."""
    tried = by_seed(runs, metric)
    keys = zip(rows["setting"], rows["versus"], rows["device"], strict=True)
    return [pairs(tried, (setting, device), (versus, device)).finite for setting, versus, device in keys]
