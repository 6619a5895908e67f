"""Settings put together by one of their properties, still paired by seed: what `--group-by` compares.

A group's value at a seed is the mean over its settings. Seeds are replicates and settings are not, so a group has a
value only at a seed that all of its settings were tried at; one that failed at it makes the group's value ∞, the worst.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import pandas as pd

from reports.contract.errors import ReportError
from reports.contract.settings import distinct, quote
from reports.contract.stored_run import FINISHED
from reports.store.frame import ABSENT, CORE, WORST

NAMES = ("estimator", "estimator_label", "schedule", "schedule_label", "axes")
"""The columns to group by, besides the parameters of the configuration."""
NOT_SET = "not set"


def choices(runs: pd.DataFrame) -> list[str]:
    """Return the names that runs can be grouped by: those that differ between runs."""
    parameters = [name for name in runs.columns if name not in CORE and "/" not in name]
    known = runs[~runs["status"].isin(ABSENT)]
    swept = [name for name in parameters if known[name].dropna().astype(str).nunique() > 1]
    return [*(name for name in NAMES if runs[name].nunique() > 1), *sorted(swept)]


def grouped(runs: pd.DataFrame, by: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row per group, device and seed, with the columns of ``reports.store.frame`` that a comparison needs.

    Raises ReportError if ``by`` is no choice, or if no estimator is in every group.
    """
    if by not in choices(runs):
        near = difflib.get_close_matches(by, choices(runs), 1, 0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ReportError(f"--group-by: expected one of {', '.join(choices(runs)) or 'nothing'}; got '{by}'.{hint}")
    of_estimators = by in ("estimator", "estimator_label")
    named = _named(runs, by)
    if not of_estimators:
        named = named[~named["estimator_label"].isin(left_out(runs, by))]
    if named.empty:
        raise ReportError(f"--group-by: expected estimators that are in every group of {by}, got none.")
    named = named.assign(group=named["group"].fillna(_unknown(named)))
    if not of_estimators:
        named = named.assign(group=f"{by}=" + named["group"])
    rows = []
    for (group, device, seed), part in named.groupby(["group", "device", "seed"], sort=True, dropna=False):
        settings = named.loc[(named["group"] == group) & (named["device"] == device), "setting"].nunique()
        rows.append(
            {
                **dict.fromkeys(("run_id", "name", "error", "sweep", "axes"), ""),
                "label": group,
                "setting": group,
                "estimator_label": group,
                "device": device,
                "seed": seed,
                "run_key": f"{group} {device} {seed}",
                "estimator": part["estimator"].iloc[0] if of_estimators else group,
                "schedule": None,
                "schedule_label": None,
                "status": _status(part["status"], settings),
                "shared_machine": bool(part["shared_machine"].any()),
                "start": part["start"].min(),
                "end": part["end"].max(),
                **{name: part[name].iloc[0] for name in ("task", "task_label", "measures") if name in part},
                **{name: part[name].mean() if part[name].notna().all() else math.nan for name in metrics},
            }
        )
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def _named(runs: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the runs with their group. A run that left no trace has that of the other runs of its setting."""
    if by.startswith("schedule"):
        runs = runs[runs["schedule_label"].notna()]
    values = [None if missing else str(value) for value, missing in zip(runs[by], runs[by].isna(), strict=True)]
    texts = distinct(values, lambda value: NOT_SET if value is None else value, _or_not_set)
    text = pd.Series([texts[value] for value in values], index=runs.index, dtype=object)
    known = text[~runs["status"].isin(ABSENT)].groupby(runs["setting"]).agg(lambda each: each.iloc[0])
    of_setting = runs["setting"].map(known).astype(object)
    stated = by in NAMES
    return runs.assign(group=text.where((~runs["status"].isin(ABSENT)) | stated, of_setting))


def _unknown(named: pd.DataFrame) -> str:
    """Return the name of the group of settings without a stored run: a text that no group has."""
    unknown = "unknown"
    while (named["group"] == unknown).any():
        unknown = f"({unknown})"
    return unknown


def _or_not_set(value: str | None) -> str:
    return NOT_SET if value is None else quote(value)


def left_out(runs: pd.DataFrame, by: str) -> list[str]:
    """Return the estimators that are not in every group: a mean over different ones would not compare the groups."""
    if by in ("estimator", "estimator_label"):
        return []
    named = _named(runs, by)
    named = named[named["group"].notna()]
    groups = named.groupby("estimator_label")["group"].nunique()
    return sorted(set(runs["estimator_label"]) - set(groups.index[groups == named["group"].nunique()]))


def _status(statuses: pd.Series, n_settings: int) -> str:
    """Return the status of a group at a seed: finished only if all of its settings did."""
    worst = [status for status in WORST if (statuses == status).any()]
    if worst:
        return worst[0]
    return FINISHED if len(statuses) >= n_settings and (statuses == FINISHED).all() else "missing"
