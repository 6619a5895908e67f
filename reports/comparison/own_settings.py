"""What settings differ in besides the estimator, because estimators have it for themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from reports.contract.stored_run import TAU

SCHEDULE = "schedule"
Values = Mapping[str, tuple[str, ...]]
"""The values of a field by the label of the estimator, in the order of the runs."""


def own_settings(runs: pd.DataFrame) -> dict[str, Values]:
    """Return the fields whose values estimators have for themselves, by name, and their schedules, the last.

    Schedules are compared between estimators with the same temperature, τ. Runs of former grids do not count.
    """
    current = runs[~runs["former"]] if "former" in runs else runs
    found: dict[str, dict[str, dict[str, None]]] = {}
    own = current["own_axes"] if "own_axes" in current else [()] * len(current)
    for label, axes in zip(current["estimator_label"], own, strict=True):
        for name, value in axes:
            found.setdefault(str(name), {}).setdefault(str(label), {})[value or "not stated"] = None
    if len(schedules := _schedules(current)) > 1 and len({frozenset(each) for each in schedules.values()}) > 1:
        found[SCHEDULE] = schedules
    return {name: {label: tuple(each) for label, each in values.items()} for name, values in found.items()}


def _schedules(runs: pd.DataFrame) -> dict[str, dict[str, None]]:
    """Return the schedules of τ of each estimator."""
    if TAU not in runs:
        return {}
    of_tau = set(runs.loc[runs[TAU].notna(), "estimator_label"])
    tempered = runs[runs["schedule_label"].notna() & runs["estimator_label"].isin(of_tau)]
    by_label = tempered.groupby("estimator_label", sort=True)["schedule_label"]
    return {str(label): dict.fromkeys(map(str, mine)) for label, mine in by_label}


def together(values: Values) -> dict[tuple[str, ...], list[str]]:
    """Return the labels of the estimators that have the same values, in any order, by these values."""
    groups: dict[frozenset[str], tuple[tuple[str, ...], list[str]]] = {}
    for label in sorted(values):
        groups.setdefault(frozenset(values[label]), (values[label], []))[1].append(label)
    return dict(groups.values())


def listed(texts: Collection[str]) -> str:
    """Return ``a, b and c``."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last
