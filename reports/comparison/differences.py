"""Each setting against the baseline, paired by seed. Pure functions of the tidy frame."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison.levels import DESCRIPTION, SETTING
from reports.comparison.metrics import Metric, metric_of
from reports.contract.errors import ReportError
from reports.contract.settings import axes_text, in_quotes, joined
from reports.contract.stored_run import FINISHED
from reports.store.frame import WORST


@dataclass(frozen=True)
class Baseline:
    """What settings are compared with: an estimator with its parameters, or one setting of it."""

    label: str
    by: str  # the column that ``label`` is a value of: estimator_label or setting


def choose_baseline(runs: pd.DataFrame, wanted: str | None) -> Baseline:
    """Return what ``wanted`` names: an estimator, one with parameters, or a setting. Default: straight_through.

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
    """Return what the text names, or None. An estimator's label goes before a setting's text, which may be quoted."""
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


def differences(runs: pd.DataFrame, metric: Metric | str, baseline: Baseline) -> pd.DataFrame:
    """Return one row per setting and baseline setting, paired by seed: ``setting − baseline``, best first.

    Pairs have the same seed, device and other axes, and the same schedule; an estimator without a temperature is paired
    with every schedule. Fields that an estimator has for itself, its schedule among them, may differ. A failed or
    diverged run is worst; a run that is missing, skipped or unfinished makes no pair. Holm's correction is over all
    rows. ``equivalence`` is empty for a metric without a band.
    """
    metric = metric_of(runs, metric)
    tried = by_seed(runs, metric)
    rows = [_difference_row(tried, one, other, metric) for one, other in _pairs(runs, baseline)]
    rows = [{**row, "against": row["against"] if baseline.by == _BY else ""} for row in rows]
    columns = ["setting", "device", "estimator", "estimator_label", "versus", "against", "n_pairs", "n_bad", "mean"]
    columns += ["median", "low", "high", "probability_of_improvement", "improvement_low", "improvement_high"]
    columns += ["equivalence", "p", "floor"]
    frame = pd.DataFrame([row for row in rows if row["n_pairs"]], columns=columns)
    frame["p_holm"] = st.holm(frame["p"].to_numpy(dtype=float))
    frame["n_comparisons"] = len(frame)
    order = frame.assign(mean=metric.sign * frame["mean"]).sort_values(["mean", "setting", "versus"], kind="stable")
    return frame.loc[order.index].reset_index(drop=True)


def _pairs(runs: pd.DataFrame, baseline: Baseline) -> Iterator[tuple[pd.Series, pd.Series]]:
    settings = described(runs).drop_duplicates()
    is_baseline = settings[baseline.by] == baseline.label
    for _, one in settings[~is_baseline].iterrows():
        same = settings[is_baseline & (settings["device"] == one["device"])]
        for _, other in (counterparts(one, same) if baseline.by == _BY else same).iterrows():
            yield one, other


def described(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what describes the setting of each run, its axes whole and as `reports.store.frame` splits them."""
    shared = runs["shared_axes"] if "shared_axes" in runs else runs["axes"]
    own = runs["own_axes"] if "own_axes" in runs else pd.Series([()] * len(runs), index=runs.index, dtype=object)
    return runs[DESCRIPTION].assign(shared_axes=shared, own_axes=own)


def counterparts(one: pd.Series, those: pd.DataFrame) -> pd.DataFrame:
    """Return the settings of another estimator that a setting is compared with: equal to it but for the estimator.

    Where there is none, the fields that an estimator has for itself may differ, the schedule among them: as few of
    these two, the axes and the schedule, as possible.
    """
    same_axes: pd.DataFrame = those[those["axes"] == one["axes"]]
    if len(exact := _at_schedule(same_axes, one)):
        return exact
    those = same_axes if len(same_axes) else those[those["shared_axes"] == one["shared_axes"]]
    same_schedule = _at_schedule(those, one)
    return same_schedule if len(same_schedule) else those


def _at_schedule(those: pd.DataFrame, one: pd.Series) -> pd.DataFrame:
    """Return the settings with the schedule of another, or all if that has none, and those without one."""
    if pd.isna(one["schedule_label"]):
        return those
    found: pd.DataFrame = those[those["schedule_label"].isna() | (those["schedule_label"] == one["schedule_label"])]
    return found


ValuesBySeed = Mapping[tuple[str, str], Mapping[int, float]]
"""By setting and device: the value of every seed that was tried to the end; ``inf`` for failed and diverged runs.

Where higher is better, values have the other sign, so that lower is better for every statistic of them."""


def by_seed(runs: pd.DataFrame, metric: Metric | str) -> ValuesBySeed:
    """Return the values that pairs are made from; of a seed that was run more than once, its first value."""
    metric = metric_of(runs, metric)
    values = metric.sign * runs[metric.name].where(runs["status"] == FINISHED).astype(float)
    values = values.mask(runs["status"].isin(WORST), math.inf)
    there = runs["seed"].notna() & values.notna()
    found: dict[tuple[str, str], dict[int, float]] = {}
    rows = runs.loc[there, [*SETTING, "seed"]].itertuples(index=False, name=None)
    for (setting, device, seed), value in zip(rows, values[there].tolist(), strict=True):
        found.setdefault((setting, device), {}).setdefault(int(seed), value)
    return found


class Pairs(NamedTuple):
    """The differences of two settings, one per seed that both have tried to the end, in the order of the seeds.

    They are of values for which lower is better, as in `by_seed`: a negative one is an improvement.
    """

    all: np.ndarray  # ``inf`` where one failed; 0, a tie, where both did
    finite: np.ndarray  # pairs in which both finished: for means and intervals
    both_failed: int

    @property
    def n_bad(self) -> int:
        """Pairs in which a run failed."""
        return len(self.all) - len(self.finite)


def to_pairs(mine: np.ndarray, theirs: np.ndarray) -> Pairs:
    """Return the differences ``mine − theirs`` of values at the same seeds."""
    every = st.paired_differences(mine, theirs)
    finished = np.isfinite(mine) & np.isfinite(theirs)
    return Pairs(every, every[finished], int(np.sum(np.isinf(mine) & np.isinf(theirs))))


def pairs(tried: ValuesBySeed, one: tuple[str, str], other: tuple[str, str]) -> Pairs:
    """Return the differences of two settings, ``one − other``."""
    return to_pairs(*paired_values(tried, one, other))


def paired_values(tried: ValuesBySeed, one: tuple[str, str], other: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the seeds that both have tried to the end, in the order of the seeds."""
    mine, theirs = tried.get(one, {}), tried.get(other, {})
    seeds = sorted(mine.keys() & theirs.keys())
    return np.array([mine[seed] for seed in seeds], dtype=float), np.array(
        [theirs[seed] for seed in seeds], dtype=float
    )


def _difference_row(tried: ValuesBySeed, one: pd.Series, other: pd.Series, metric: Metric) -> dict[str, object]:
    pair = (one["setting"], one["device"]), (other["setting"], other["device"])
    found = pairs(tried, *pair)
    all_pairs, finite = found.all, found.finite
    interval, improvement = metric.turned(st.t_interval(finite)), st.improvement_interval(all_pairs)
    return {
        **{name: one[name] for name in ("setting", "device", "estimator", "estimator_label")},
        "versus": other["setting"],
        "against": joined(
            None if pd.isna(other["schedule_label"]) else other["schedule_label"],
            axes_text(other["own_axes"]) or other["axes"],  # the others are those of the setting itself
        ),
        "n_pairs": len(all_pairs),
        "n_bad": found.n_bad,
        "mean": metric.sign * st.mean(finite),
        "median": metric.sign * st.median(all_pairs),
        "low": interval.low,
        "high": interval.high,
        "probability_of_improvement": st.probability_of_improvement(all_pairs),
        "improvement_low": improvement.low,
        "improvement_high": improvement.high,
        "equivalence": equivalence_of(found, metric),
        "p": st.wilcoxon(all_pairs),
        "floor": st.power_floor(len(all_pairs)),
    }


def equivalence_of(found: Pairs, metric: Metric) -> str:
    """Return the verdict about the band of the metric; an empty text if it has none."""
    return "" if metric.band is None else st.equivalence(found.all, metric.band, both_failed=found.both_failed)


def difference_points(runs: pd.DataFrame, metric: Metric | str, rows: pd.DataFrame) -> list[np.ndarray]:
    """Return the differences behind each row of ``differences``, one per pair in which both finished."""
    metric = metric_of(runs, metric)
    tried = by_seed(runs, metric)
    keys = zip(rows["setting"], rows["versus"], rows["device"], strict=True)
    return [metric.sign * pairs(tried, (setting, device), (versus, device)).finite for setting, versus, device in keys]
