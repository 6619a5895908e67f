"""What the runs say, in words: a sentence per metric, the counts, and what a reader must not overlook."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison import (
    Baseline,
    Metric,
    ValuesBySeed,
    bound_samples,
    by_seed,
    counterparts,
    described,
    own_settings,
    pairs,
)
from reports.comparison.own_settings import listed, together
from reports.contract import stored_run as names
from reports.contract.measures import HIGHER
from reports.page.numbers import band, fixed, interval, p_value
from reports.store.frame import STATUSES
from reports.store.tasks import is_vae

NB = "\u00a0"  # a non-breaking space


def counts(runs: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the number of planned runs, then of every status; of the usual ones also if it is zero."""
    usual = (names.FINISHED, names.FAILED, names.DIVERGED, names.SKIPPED, "missing")
    found = runs["status"].value_counts()
    others = [status for status in (*STATUSES, *sorted(set(found.index) - set(STATUSES))) if status not in usual]
    shown = [(status, int(found.get(status, 0))) for status in (*usual, *others)]
    outdated = int(runs["former"].sum()) if "former" in runs else 0
    shown += [("no longer in the grid", outdated)] if outdated else []
    return [
        ("planned", len(runs) - outdated),
        *[(status, count) for status, count in shown if count or status in usual],
    ]


def sentence(
    runs: pd.DataFrame, metric: Metric, levels: pd.DataFrame, differences: pd.DataFrame, baseline: Baseline
) -> tuple[str, str]:
    """Return subject and predicate: what the runs say about one metric, with an interval, or why they say nothing."""
    usable = levels[levels["n"] > 0]
    if usable.empty:
        return "No run", " finished with this number, so there is nothing to compare."
    tried = by_seed(runs, metric)
    return _where(usable.iloc[0], usable), " " + _predicate(runs, tried, metric, usable, differences, baseline)


def _predicate(
    runs: pd.DataFrame,
    tried: ValuesBySeed,
    metric: Metric,
    usable: pd.DataFrame,
    differences: pd.DataFrame,
    baseline: Baseline,
) -> str:
    best = usable.iloc[0]
    value = f"{fixed(best['mean'], metric.digits)} {metric.per}".strip() + _interval_of_mean(best, metric)
    if len(usable) == 1:
        return f"reaches {value}. It is the only setting with a result: nothing to compare it with."
    lead = f"{_best_mean(usable, metric)}, {value}"
    if best["n_bad"]:
        lead += f", although {best['n_bad']} of its runs failed or diverged"
    lead += _better_but_failing(usable, metric)
    if best[baseline.by] == baseline.label:
        return f"{lead}. It is the baseline; {_nearest(tried, usable, metric)}"
    rows = differences[(differences["setting"] == best["setting"]) & (differences["device"] == best["device"])]
    worst_first = metric.better == HIGHER  # first against the baseline's best schedule
    rows = rows.sort_values("mean", ascending=worst_first, kind="stable")
    if rows.empty or not math.isfinite(rows.iloc[0]["mean"]):
        return f"{lead}. {_unpaired(runs, usable, best, baseline)}"
    return f"{lead}. {_against(rows.iloc[0], metric)}{_best_of_baseline(tried, metric, usable, rows.iloc[0], baseline)}"


def _best_of_baseline(
    tried: ValuesBySeed, metric: Metric, usable: pd.DataFrame, row: pd.Series, baseline: Baseline
) -> str:
    """Return the same for the baseline's best setting, if that is another one than it was paired with."""
    those = usable[(usable[baseline.by] == baseline.label) & (usable["device"] == row["device"])]
    if those.empty or those.iloc[0]["setting"] == row["versus"]:
        return ""
    best = those.iloc[0]["setting"]
    finite = pairs(tried, (row["setting"], row["device"]), (best, row["device"])).finite
    if not len(finite):
        return ""
    away = _with_unit(metric.sign * st.mean(finite), metric)
    return f" Against the baseline’s best setting, {best}, it is at {away} ({_note(finite, metric)})."


def _note(finite: np.ndarray, metric: Metric) -> str:
    """Return the interval of a mean difference, and whether it contains zero."""
    bounds = metric.turned(st.t_interval(finite))
    if not bounds.known:
        return "one pair gives no interval"
    span = interval(bounds.low, bounds.high, metric.digits, signed=True)
    return f"95{NB}% interval {span}{'' if bounds.excludes_zero else ', which contains zero'}"


def _best_mean(usable: pd.DataFrame, metric: Metric) -> str:
    """Return among how many settings the first has the best mean: among those without a failure, which rank first."""
    whole = usable[usable["n_bad"] == 0] if metric.compared else usable
    equal = int((whole["mean"] == usable.iloc[0]["mean"]).sum()) - 1 if len(whole) else 0
    shared = f", with {equal} other{'s' * (equal > 1)}," if equal > 0 else ""  # such as an optimum that many reach
    if len(whole) in (0, len(usable)):
        return f"has{shared} the {metric.best} mean of {len(usable)} settings"
    if len(whole) == 1:
        return f"is the only one of {len(usable)} settings without a failed run"
    return f"has{shared} the {metric.best} mean of the {len(whole)} settings without a failed run"


def _better_but_failing(usable: pd.DataFrame, metric: Metric) -> str:
    """Return which setting has a better mean and ranks behind, because a run of it failed."""
    best = usable.iloc[0]
    better = usable[(metric.sign * usable["mean"] < metric.sign * best["mean"]) & (usable["n_bad"] > 0)]
    if best["n_bad"] or better.empty:
        return ""
    row = better.sort_values("mean", ascending=metric.sign > 0, kind="stable").iloc[0]
    n = row["n_bad"] + row["n"]
    mean = fixed(row["mean"], metric.digits)
    return f" ({_where(row, usable)} has {mean}, but {row['n_bad']} of its {n} runs failed)"


def _unpaired(runs: pd.DataFrame, usable: pd.DataFrame, best: pd.Series, baseline: Baseline) -> str:
    """Return why there is no difference to the baseline."""
    start = f"It cannot be paired with the baseline {baseline.label}: "
    those = usable[(usable[baseline.by] == baseline.label) & (usable["device"] == best["device"])]
    if those.empty:
        return f"{start}that has no finished run{' on this device' if usable['device'].nunique() > 1 else ''}."
    if baseline.by == "estimator_label":
        settings = described(runs[runs["device"] == best["device"]]).drop_duplicates()
        mine = settings[settings["setting"] == best["setting"]].iloc[0]
        if counterparts(mine, settings[settings["setting"].isin(those["setting"])]).empty:
            return f"{start}that was not run with {mine['shared_axes'] or 'the same other axes'}."
    return f"{start}no seed finished in both."


def _where(row: pd.Series, frame: pd.DataFrame) -> str:
    return f"{row['setting']} on {row['device']}" if frame["device"].nunique() > 1 else str(row["setting"])


def _interval_of_mean(row: pd.Series, metric: Metric) -> str:
    if math.isnan(row["low"]):
        return f" (n{NB}={NB}{row['n']}, too few for an interval)"
    return f" (95{NB}% t-interval {interval(row['low'], row['high'], metric.digits)}, n{NB}={NB}{row['n']})"


def _against(row: pd.Series, metric: Metric) -> str:
    side = "below" if row["mean"] < 0 else "above"
    change = f"{_with_unit(abs(row['mean']), metric, signed=False)} {side} {row['versus']}"
    change = change if row["mean"] else f"equal to {row['versus']}"
    n = row["n_pairs"] - row["n_bad"]
    if math.isnan(row["low"]):
        return f"At the same seed it is {change}; one pair gives no interval."
    bounds = interval(row["low"], row["high"], metric.digits, signed=True)
    span = f"Paired by seed it is {change} (95{NB}% interval {bounds}, {n} pairs)"
    certain = st.Interval(row["low"], row["high"]).excludes_zero
    return (
        f"{span}{', an interval without zero.' if certain else ': the interval contains zero, so this may be chance.'}"
    )


def _with_unit(value: float, metric: Metric, *, signed: bool = True) -> str:
    return f"{fixed(value, metric.digits, signed=signed)} {metric.unit}".strip()


def _nearest(tried: ValuesBySeed, usable: pd.DataFrame, metric: Metric) -> str:
    """Return how far the second best is, whatever its schedule, paired by seed."""
    best, other = usable.iloc[0], usable.iloc[1]
    keys = [(str(row["setting"]), str(row["device"])) for row in (best, other)]
    finite = pairs(tried, keys[1], keys[0]).finite
    name = _where(other, usable)
    second = f"the second best, {name}," if not other["n_bad"] else f"{name}, the next of which runs failed,"
    if not len(finite):
        return f"{second} has no seed in common with it."
    away = _with_unit(metric.sign * st.mean(finite), metric)
    return f"paired with it by seed, {second} is at {away} ({_note(finite, metric)})."


def power_floor(differences: pd.DataFrame) -> str:
    """Return what Wilcoxon's test can and cannot say at the number of pairs there is."""
    if differences.empty:
        return ""
    n = int(differences["n_pairs"].max())
    floor = st.power_floor(n)
    pairs = f"{n} pair{'s' * (n != 1)}"
    if floor > 0.05:
        return (
            f"Power floor: with {pairs} the smallest possible two-sided Wilcoxon p is {p_value(floor)}, so no "
            "comparison here can reach .05 whatever the data. Six seeds are the least that can: read the intervals."
        )
    least = min(1.0, floor * len(differences))
    text = f"Power floor: with {pairs} the smallest possible two-sided Wilcoxon p is {p_value(floor)}"
    return f"{text}, and {p_value(least)} after Holm's correction for {len(differences)} comparisons."


def seeds_needed(levels: pd.DataFrame, tried: ValuesBySeed, metric: Metric) -> str:
    """Return how many seeds would show a difference as large as the band, by the spread of the second best to the best.

    For a metric without a band, how to give one.
    """
    usable = levels[levels["n"] > 1]
    if len(usable) < 2:
        return ""
    if not metric.band:
        return (
            "Seeds: how many would be enough depends on the smallest difference that matters, which nobody has stated. "
            f"Give {metric.title} a band where the task declares it, or use --band."
        )
    best, other = usable.iloc[0], usable.iloc[1]
    finite = pairs(tried, (other["setting"], other["device"]), (best["setting"], best["device"])).finite
    if len(finite) < 2:
        return ""
    spread = float(finite.std(ddof=1))
    n = st.sample_size(spread, metric.band)
    small = f"{band(metric.band)} {metric.unit}".strip()
    return (
        f"Seeds: the paired differences of the second best, {_where(other, usable)}, to the best have a standard "
        f"deviation of {_with_unit(spread, metric, signed=False)}, so a difference of {small} would be found four "
        f"times out of five with {n} seeds by a paired t test at 5{NB}%. Raise seeds in the grid and run the same "
        f"command: what is finished stays.{'' if len(finite) >= 6 else _FEW}"
    )


_FEW = " From so few seeds that spread is itself uncertain, and Wilcoxon’s test needs six at least."


MOST_GROUPS = 8
"""Estimators, or groups of them with the same values, whose settings a sentence lists."""


def differing(runs: pd.DataFrame) -> str:
    """Return what settings differ in besides the estimator, because estimators have it for themselves."""
    sentences = []
    for name, values in own_settings(runs).items():
        groups = [f"{listed(labels)} at {listed(found)}" for found, labels in together(values).items()]
        hidden = [f"{len(groups) - MOST_GROUPS} more in the tables below"] if len(groups) > MOST_GROUPS else []
        sentences.append(f"Each at its own {name}: {'; '.join([*groups[:MOST_GROUPS], *hidden])}.")
    return " ".join(["Settings differ besides the estimator.", *sentences]) if sentences else ""


_PROBLEMS = {
    "of different data": (
        *(names.PARAM_DATA, names.PARAM_PATH, names.PARAM_DIGEST),
        *(names.PARAM_BINARIZATION, names.PARAM_TRAIN_SIZE),
    ),
    "of different models": (names.PARAM_LATENTS, names.PARAM_CATEGORIES, names.PARAM_HIDDEN),
    "with different budgets": (names.PARAM_EPOCHS, names.PARAM_BATCH_SIZE),
}
"""Differences that make runs incomparable, although a report ranks them together."""


def _swept(runs: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name in runs and runs[name].dropna().astype(str).nunique() > 1]


def _mixed(runs: pd.DataFrame, words: str, columns: Sequence[str]) -> str:
    parts = [f"{name}: {', '.join(sorted(set(runs[name].dropna().astype(str))))}" for name in _swept(runs, columns)]
    return (
        f"Runs {words} are ranked together ({'; '.join(parts)}): compare settings only where these are the same, or "
        f"report on each alone."
    )


def warnings(runs: pd.DataFrame) -> list[str]:
    """Return what a reader must know before quoting a number."""
    found = []
    finished = runs[runs["status"] == names.FINISHED]
    by_estimator = runs.groupby("estimator_label")
    sweeps_lr = names.PARAM_LR in runs and bool((by_estimator[names.PARAM_LR].nunique() > 1).any())
    if (by_estimator["schedule_label"].nunique() > 1).any() and not sweeps_lr:
        found.append(
            "Temperature and learning rate are confounded: the learning rate was not swept, and a schedule that "
            "changes τ also changes the size of the gradient. What looks like a schedule may be a learning rate."
        )
    found += [_mixed(runs, words, columns) for words, columns in _PROBLEMS.items() if _swept(runs, columns)]
    seeds = finished.groupby(["setting", "device"])["seed"].nunique()
    if len(seeds) and seeds.max() == 1:
        found.append("One seed per setting: no interval can be given, and the order of the settings may be chance.")
    if finished["shared_machine"].any():
        found.append("Times were taken while other runs shared the machine: compare quality, not speed.")
    if is_vae(runs) and "," in bound_samples(runs):
        found.append(f"The runs use different k for the importance-weighted bound ({bound_samples(runs)}).")
    return found
