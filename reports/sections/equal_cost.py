"""Quality at equal cost: the loss of each setting when the smallest budget of all is spent."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.comparison import Metric
from reports.contract.stored_run import FINISHED, N_COST_EVALS
from reports.page.numbers import fixed
from reports.page.table import Cell, Column, Table
from reports.page.wording import Wording
from reports.store.frame import WORST

SETTING = ["setting", "device"]
UNITS = {"updates": "step", "evaluations": "evals_per_image", "seconds": "elapsed_s"}
"""Unit of cost -> column of the history."""


def with_evaluations(runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return the history with ``evals_per_image``: evaluations of the cost per training example so far, if known."""
    if N_COST_EVALS not in runs:
        return history.assign(evals_per_image=math.nan)
    per_update = runs.set_index("run_key")[N_COST_EVALS].astype(float)
    return history.assign(evals_per_image=history["epoch"] * history["run_key"].map(per_update))


def losses(runs: pd.DataFrame, history: pd.DataFrame, metric: Metric | None) -> pd.DataFrame | None:
    """Return one row per setting and device that finished: budget, loss and rank in each unit; None without a pair.

    The loss is the metric of the curves, whichever direction is better.

    The budget is the smallest, over the settings of a device, of what a setting's runs cost in the median. A setting's
    loss is its mean over seeds at the last epoch within the budget; NaN where a seed has none. ``n_bad`` of its runs
    failed or diverged: it ranks after those without.
    """
    if metric is None or history.empty:
        return None
    finished = with_evaluations(runs, history[history["status"] == FINISHED])
    if finished.groupby(SETTING).ngroups < 2:
        return None
    found = finished.groupby(SETTING, sort=True)[["estimator", "estimator_label"]].first()
    failed = runs[runs["status"].isin(WORST)].groupby(SETTING).size()
    found["n_bad"] = failed.reindex(found.index).fillna(0).astype(int)
    for unit, column in UNITS.items():
        if finished[column].isna().any():
            continue
        of_run = finished.groupby([*SETTING, "run_key"])[column].max()
        budget = of_run.groupby(level=[0, 1]).median().groupby(level=1).min()
        within = finished[finished[column] <= finished["device"].map(budget) * (1 + 1e-9)].sort_values("epoch")
        last = within.groupby([*SETTING, "run_key"])[metric.name].last().reindex(of_run.index)
        found[f"{unit}_budget"] = found.index.get_level_values("device").map(budget.to_dict())
        found[f"{unit}_loss"] = last.groupby(level=[0, 1]).agg(lambda each: each.mean(skipna=False))
        ranked = (metric.sign * found[f"{unit}_loss"]).where(
            (found["n_bad"] == 0) | found[f"{unit}_loss"].isna(), math.inf
        )
        found[f"{unit}_rank"] = ranked.groupby(level=1).rank(method="min")
    first = next((f"{unit}_loss" for unit in UNITS if f"{unit}_loss" in found), None)
    if first is None:
        return None
    order = found.assign(has_failed=found["n_bad"] > 0, **{first: metric.sign * found[first]})
    return found.loc[order.sort_values(["has_failed", first, *SETTING], kind="stable").index].reset_index()


def table(found: pd.DataFrame, metric: Metric, wording: Wording) -> Table:
    """Return the rows with a column per unit: the loss, and its rank in brackets."""
    units = [unit for unit in UNITS if f"{unit}_loss" in found]
    columns = [Column("Setting", numeric=False, term="setting"), Column("Device", numeric=False)]
    for unit in units:
        shown = ", ".join(f"{budget:,.4g}" for budget in found.groupby("device")[f"{unit}_budget"].first())
        meaning = f"{wording.evaluations} per training {wording.image}" if unit == "evaluations" else unit
        columns.append(Column(f"{shown} {unit}", meaning=f"{metric.name} when so many {meaning} are spent",
                              term="equal-cost"))  # fmt: skip
    rows = []
    for row in found.to_dict("records"):
        name = str(row["setting"]) + (f" ({row['n_bad']} failed)" if row["n_bad"] else "")
        cells = [Cell(name, str(row["setting"]), estimator=str(row["estimator"]), tone="warn" if row["n_bad"] else "")]
        cells.append(Cell(str(row["device"]), str(row["device"])))
        for unit in units:
            loss, rank = row[f"{unit}_loss"], row[f"{unit}_rank"]
            known = not np.isnan(loss)
            text = f"{fixed(loss, metric.digits)} ({rank:.0f})" if known else "not all seeds"
            best = known and rank == 1 and not row["n_bad"]
            cells.append(Cell(text, float(loss) if known else None, tone="good" if best else ""))
        rows.append(cells)
    return Table(", ".join(filter(None, [f"{metric.name} at equal cost", metric.per])), columns, rows)
