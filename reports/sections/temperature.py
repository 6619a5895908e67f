"""How much the temperature matters to each estimator, and the learning rate that went with it."""

from __future__ import annotations

import math

import pandas as pd

from reports import statistics as st
from reports.comparison import Metric, metric_of
from reports.contract.stored_run import FAILED, FINISHED, PARAM_LR, PARAM_TAU
from reports.page import numbers
from reports.page.axes import annotate, finish, one_panel
from reports.page.blocks import Block, How, Pictures, Section, Tabular, Words
from reports.page.context import Context
from reports.page.svg import Panel, inline, short
from reports.page.table import Cell, Column, Table
from reports.store.frame import WORST

HOW = (
    "Median {metric} of each estimator and schedule, and in brackets n; darker is better, from the best cell to what "
    "is {span} worse or more. Where other fields are swept too, a cell shows the best of them and names it: a "
    "schedule is judged together with the learning rate that suits it. {worst}: half of the runs or more have failed "
    "or diverged."
)
HOW_CURVE = (
    "Constant temperatures: the median over seeds at each τ, at the best of the other fields, which stands beside the "
    "mark where it is not the same everywhere. A flat line is an estimator that needs no tuning."
)
LEAST_SPAN = 2
"""Times the band of the metric: cells that differ by less have nearly the same colour."""


def section(context: Context) -> Section:
    """Show a heat map of estimators × schedules, and curves over constant temperatures."""
    metric = context.primary
    cells = best_cells(context.frame, metric) if metric else pd.DataFrame()
    if metric is None or cells.empty:
        text = "No estimator with a temperature has finished a run."
        return Section("sensitivity", "Temperature sensitivity", [Words(text, "empty")])
    span = _span(cells, metric)
    shown = f"{numbers.fixed(span, metric.digits - 1)} {metric.unit}".strip()
    blocks: list[Block] = [
        Tabular(_table(cells, metric, span), "sensitivity", cells, style="matrix heat"),
        How(HOW.format(metric=metric.name, span=shown, worst=numbers.fixed(metric.worst))),
    ]
    if panel := _curves(context, cells, metric):
        blocks += [Pictures("sensitivity", [panel], legend=True), How(HOW_CURVE)]
    return Section("sensitivity", "Temperature sensitivity", blocks)


def _span(cells: pd.DataFrame, metric: Metric) -> float:
    """Return how much worse than the best cell the palest one is."""
    finite = metric.sign * cells.loc[cells["median"].map(math.isfinite), "median"]
    least = LEAST_SPAN * (metric.band or 0)
    found = max(least, float(finite.quantile(0.9) - finite.min())) if len(finite) else least
    return found or 1.0


def best_cells(runs: pd.DataFrame, metric: Metric | str) -> pd.DataFrame:
    """Return the median over seeds of each estimator, schedule and device, at the best of the other axes."""
    tried = runs[runs["schedule_label"].notna() & runs["status"].isin((*WORST, FINISHED))]
    if tried.empty:
        return pd.DataFrame()
    metric = metric_of(runs, metric)
    values = (metric.sign * tried[metric.name]).where(tried["status"] == FINISHED, math.inf).astype(float)
    tried = tried.assign(value=values).dropna(subset=["value"])
    keys = ["estimator", "estimator_label", "schedule_label", "device", "axes"]
    by = tried.groupby(keys, sort=True)
    cells = by["value"].agg(median=lambda found: st.median(found.to_numpy()), n="size").reset_index()
    for name in (PARAM_LR, PARAM_TAU):
        if name in tried:
            cells[name] = by[name].first().to_numpy()
    cells = cells.sort_values(["median", "axes"], kind="stable").drop_duplicates(keys[:-1])
    cells["median"] *= metric.sign
    return cells.sort_values(keys, kind="stable").reset_index(drop=True)


def _table(cells: pd.DataFrame, metric: Metric, span: float) -> Table:
    heads = sorted(cells[["schedule_label", "device"]].drop_duplicates().itertuples(index=False, name=None))
    devices = cells["device"].nunique() > 1
    columns = [Column("Estimator", numeric=False)]
    columns += [Column(f"{schedule} · {device}" if devices else schedule, term="median") for schedule, device in heads]
    best = float((metric.sign * cells["median"]).min())
    found = cells.set_index(["estimator_label", "schedule_label", "device"])
    rows = []
    for (estimator, label), _ in cells.groupby(["estimator", "estimator_label"], sort=True):
        row = [Cell(str(label), str(label), estimator=str(estimator))]
        for head in heads:
            row.append(_cell(found.loc[(label, *head)], best, span, metric) if (label, *head) in found.index else
                       Cell("not in the grid", None, tone="absent"))  # fmt: skip
        rows.append(row)
    return Table(
        f"{metric.title}: median (n) of each estimator and schedule, at the best of the other axes", columns, rows
    )


def _cell(row: pd.Series, best: float, span: float, metric: Metric) -> Cell:
    value = float(row["median"])
    text = f"{numbers.fixed(value, metric.digits)} ({row['n']})" + (f" {row['axes']}" if row["axes"] else "")
    if not math.isfinite(value):
        return Cell(text, numbers.sortable(value), tone=FAILED)
    return Cell(text, value, shade=max(0.0, 1 - (metric.sign * value - best) / span))


def _curves(context: Context, cells: pd.DataFrame, metric: Metric) -> Panel | None:
    """Plot the median against τ for constant schedules, a line per estimator with two temperatures or more."""
    if PARAM_TAU not in cells:
        return None
    constant = cells[cells["median"].map(math.isfinite)]  # only constant schedules have a tau
    constant = constant.assign(tau=pd.to_numeric(constant[PARAM_TAU], errors="coerce")).dropna(subset=["tau"])
    lines = {key: group for key, group in constant.groupby(["estimator_label", "device"]) if group["tau"].nunique() > 1}
    if not lines:
        return None
    with one_panel("sensitivity", (5.2, 3.2)) as (figure, axes):
        spoken = []
        for (label, _), group in lines.items():
            how, line = context.styles[str(label)], group.sort_values("tau")
            axes.plot(line["tau"], line["median"], marker=how.marker, color=how.hex, linewidth=1.8, markersize=6)
            best = line.iloc[int((metric.sign * line["median"].to_numpy()).argmin())]
            spoken.append(f"{label} is best at τ = {best['tau']:g} with {best['median']:.{metric.digits - 1}f}")
        axes.set_xscale("log")
        ticks = sorted(set(constant["tau"]))
        finish(axes, "Sensitivity to a constant temperature", "τ", metric.axis)
        axes.set_xticks(ticks, [f"{tau:g}" for tau in ticks])
        axes.minorticks_off()
        for (_, _), group in lines.items():
            if group["axes"].nunique() > 1:
                for _, row in group.iterrows():
                    annotate(axes, short(row["axes"], 20), row["tau"], row["median"])
        return inline(figure, f"{metric.title} against a constant temperature. {'; '.join(spoken)}.", wide=True)
