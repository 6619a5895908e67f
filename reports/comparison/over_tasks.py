"""Settings over several tasks: their ranks within each task, and what independent tasks say of them.

A task is a block: its seeds are averaged first. Values of two tasks are never compared, only ranks are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison.levels import SETTING
from reports.comparison.metrics import Metric
from reports.statistics.ranks import LEAST_BLOCKS

Key = tuple[str, str]
"""Setting and device."""


@dataclass(frozen=True)
class TaskLevels:
    """One task: what ranks its settings, and the level of each, as of `levels`."""

    metric: Metric
    levels: pd.DataFrame = field(repr=False)

    def of(self, key: Key) -> pd.Series | None:
        """Return the row of a setting that was tried to the end; None if there is none."""
        there = self.levels[(self.levels["setting"] == key[0]) & (self.levels["device"] == key[1])]
        return there.iloc[0] if len(there) and there.iloc[0]["n"] + there.iloc[0]["n_bad"] > 0 else None

    def order_of(self, key: Key) -> tuple[bool, float, float]:
        """Return what sorts a setting as `levels` does: those with failures last, then by the mean."""
        row = self.of(key)
        if row is None:
            return True, math.inf, math.inf
        mean = math.inf if math.isnan(row["mean"]) else self.metric.sign * row["mean"]
        return bool(row["n"] == 0), row["n_bad"] / (row["n"] + row["n_bad"]), mean


@dataclass(frozen=True)
class Ranks:
    """The ranks of the settings that every task has, one row a task; 1 is best, ties get mid-ranks.

    `p` is that of Friedman's test, `least_p` the smallest that so few tasks can give; NaN below two tasks or settings.
    `distance` is Nemenyi's critical difference of two mean ranks; None below six tasks.
    """

    keys: tuple[Key, ...]
    table: np.ndarray
    means: np.ndarray
    p: float
    least_p: float
    distance: float | None


def every_setting(tasks: Mapping[str, TaskLevels]) -> list[Key]:
    """Return the settings that a task has tried to the end."""
    keys = {key for one in tasks.values() for key in one.levels[SETTING].itertuples(index=False, name=None)}
    return sorted(key for key in keys if any(one.of(key) is not None for one in tasks.values()))


def rank_over(tasks: Mapping[str, TaskLevels]) -> Ranks:
    """Return the ranks of the settings that were tried on every task, the best mean rank first."""
    keys = [key for key in every_setting(tasks) if all(one.of(key) is not None for one in tasks.values())]
    table = np.array([_within(one, keys) for one in tasks.values()]).reshape(len(tasks), len(keys))
    means = st.average_ranks(table)
    order = np.lexsort((np.arange(len(keys)), means))
    n_tasks, n_settings = table.shape
    return Ranks(
        tuple(keys[i] for i in order),
        table[:, order],
        means[order],
        st.friedman(table),
        st.friedman(np.tile(np.arange(n_settings), (n_tasks, 1))),
        st.critical_difference(n_settings, n_tasks) if n_tasks >= LEAST_BLOCKS and n_settings > 1 else None,
    )


def _within(task: TaskLevels, keys: list[Key]) -> np.ndarray:
    """Return the rank of each setting within one task, ties mid-ranks."""
    orders = [task.order_of(key) for key in keys]
    position = {order: number for number, order in enumerate(sorted(set(orders)))}
    return st.average_ranks(np.array([[position[order] for order in orders]], dtype=float))


def as_frame(tasks: Mapping[str, TaskLevels], ranks: Ranks) -> pd.DataFrame:
    """Return one row per task and setting: its level, and its ranks if every task has the setting."""
    at = {key: number for number, key in enumerate(ranks.keys)}
    rows = []
    for number, (label, task) in enumerate(tasks.items()):
        metric = task.metric
        for key in every_setting(tasks):
            if (row := task.of(key)) is None:
                continue
            place = at.get(key)
            rows.append(
                {
                    "task": label,
                    "setting": key[0],
                    "device": key[1],
                    "metric": metric.name,
                    "unit": metric.unit,
                    "better": metric.better,
                    **{name: row[name] for name in ("mean", "low", "high", "n", "n_bad", "n_planned")},
                    "rank": math.nan if place is None else ranks.table[number, place],
                    "mean_rank": math.nan if place is None else ranks.means[place],
                }
            )
    return pd.DataFrame(rows)
