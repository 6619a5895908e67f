"""What quality costs: time, evaluations and memory; and who is best at equal cost."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import comparison
from reports import statistics as st
from reports.comparison import DESCRIPTION, Metric
from reports.contract.stored_run import (
    FINISHED,
    IMAGES_PER_S,
    N_COST_EVALS,
    PEAK_MB,
    STEP_MEDIAN_S,
    STEP_P90_S,
    TOTAL_S,
)
from reports.page import palette
from reports.page.axes import annotate, finish, one_panel
from reports.page.blocks import Block, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context
from reports.page.quality_tables import setting_cells, setting_columns
from reports.page.svg import Panel, inline, short
from reports.page.table import Cell, Column, Table
from reports.page.wording import Wording
from reports.sections import equal_cost

COSTS = {
    STEP_MEDIAN_S: ("step time", "step, ms", 1e3),
    N_COST_EVALS: ("evaluations", "{evaluations} per {image} and update", 1.0),
    PEAK_MB: ("memory", "peak memory, MB", 1.0),
}
HOW_PARETO = (
    "Each mark is a setting, mean over its seeds; further left costs less, further {up} is better. The line joins the "
    "settings that no other beats in both. A setting with a failed or diverged run is never on it."
)
HOW_TIME = (
    "A step is one update of one batch, warm-up excluded and the device synchronised. In brackets the quartiles over "
    "runs. Compare rows only where the last column says alone: no other run of the sweep was under way (other programs "
    "are not known)."
)
HOW_EQUAL = (
    "{metric} of each setting at the last epoch that the smallest budget pays for: the updates, evaluations or "
    "seconds after which the first setting of a device is at its end. Mean over seeds, where all of them have an epoch "
    "by then; the number in brackets is the rank, a setting with failed runs last. A setting that is first by updates "
    "and not by evaluations has bought its lead."
)
SHARED = (
    "Contended: other runs shared the machine, so these times are an upper bound and not a comparison of speed."
)  # fmt: skip


def section(context: Context) -> Section:
    """Show Pareto fronts, the table at equal cost, and the table of times and memory."""
    blocks: list[Block] = []
    if panels := pareto_panels(context):
        up = "up" if context.primary is not None and context.primary.sign < 0 else "down"
        how = How(HOW_PARETO.format(up=up))
        blocks += [Heading("Quality against cost"), Pictures("pareto", panels, legend=True), how]
    equal = equal_cost.losses(context.frame, context.curve_history, context.curve)
    if equal is not None and context.curve is not None:
        table = equal_cost.table(equal, context.curve, context.wording)
        blocks += [Heading("At equal cost"), Tabular(table, "equal-cost", equal)]
        blocks.append(How(HOW_EQUAL.format(metric=context.curve.name)))
    if (table_of_times := timings(context.frame, context.wording)) is not None and table_of_times.rows:
        blocks += [Heading("Time and memory"), *([Words(SHARED, "warn")] if context.is_shared else [])]
        blocks += [Tabular(table_of_times, "timings", table_of_times.frame()), How(HOW_TIME)]
    return Section("cost", "Cost", blocks or [Words("No finished run has been timed.", "empty")])


def timings(runs: pd.DataFrame, wording: Wording) -> Table | None:
    """Return medians over the finished runs of each setting; None if no time was measured."""
    names = {
        STEP_MEDIAN_S: (
            "Step, ms",
            1e3,
            2,
            "median over runs of the median step; in brackets the quartiles over runs",
        ),
        STEP_P90_S: ("Step p90, ms", 1e3, 2, "median over runs of the 90th percentile"),
        IMAGES_PER_S: (f"{wording.texts['Images']}/s", 1, 0, "training throughput at the median step"),
        TOTAL_S: ("Total, s", 1, 1, "training of one run"),
        PEAK_MB: ("Peak, MB", 1, 0, "resident memory of the process on a CPU, allocated memory on a GPU"),
    }
    names = {name: how for name, how in names.items() if name in runs and runs[name].notna().any()}
    if not names:
        return None
    finished = runs[runs["status"] == FINISHED]
    columns = [*setting_columns(True), Column("n")]
    terms = {PEAK_MB: "memory"}
    columns += [
        Column(title, meaning=meaning, term=terms.get(name, "step-time"))
        for name, (title, _, _, meaning) in names.items()
    ]
    columns.append(Column("Machine", numeric=False, meaning="shared: other runs were under way, times are contended"))
    rows = []
    for key, group in finished.groupby(DESCRIPTION, sort=True, dropna=False):
        row = pd.Series(dict(zip(DESCRIPTION, key, strict=True)))
        cells = [*setting_cells(row, True), Cell(str(len(group)), len(group))]
        for name, (_, scale, digits, _) in names.items():
            values = group[name].dropna() * scale
            if values.empty:
                cells.append(Cell("–"))
                continue
            text = f"{values.median():,.{digits}f}"
            if name == STEP_MEDIAN_S and len(values) > 1:
                text += f" ({values.quantile(0.25):.{digits}f}–{values.quantile(0.75):.{digits}f})"
            cells.append(Cell(text, float(values.median())))
        shared = bool(group["shared_machine"].any())
        rows.append([*cells, Cell("shared" if shared else "alone", tone="warn" if shared else "")])
    return Table("Time and memory, median over the finished runs of each setting", columns, rows)


def pareto_panels(context: Context) -> list[Panel]:
    """Plot quality against step time, evaluations and peak memory, each with its front."""
    if context.primary is None:
        return []
    every = _points(context, context.primary)
    panels = []
    for (device, points), (name, (title, words, scale)) in itertools.product(every.groupby("device"), COSTS.items()):
        if name in points and points[name].nunique() > 1:
            title = f"{title}, {device}" if every["device"].nunique() > 1 else title
            words = words.format(**context.wording.texts)
            panels.append(_panel(context, points.assign(cost=points[name] * scale), title, words, context.primary))
    return panels


def _points(context: Context, metric: Metric) -> pd.DataFrame:
    """Return costs and mean of each setting, and its quality: lower is better, ``inf`` if a run failed."""
    levels = setting_levels(context, metric)
    finished = context.frame[context.frame["status"] == FINISHED]
    names = [name for name in COSTS if name in finished and finished[name].notna().any()]
    costs = finished.groupby(["setting", "device"])[names].mean()
    found = levels.join(costs, on=["setting", "device"])
    quality = (metric.sign * found["mean"]).where(found["n_bad"] == 0, math.inf)
    return found.assign(quality=quality).dropna(subset=["mean"])


def setting_levels(context: Context, metric: Metric) -> pd.DataFrame:
    """Return the levels of the settings themselves, also if the report compares groups of them."""
    return context.levels(metric) if context.compared is context.frame else comparison.levels(context.frame, metric)


def _panel(context: Context, points: pd.DataFrame, title: str, words: str, metric: Metric) -> Panel:
    on_front = st.pareto_front(points[["cost", "quality"]].to_numpy(dtype=float))
    front = points[on_front].sort_values("cost", kind="stable")
    with one_panel(f"pareto-{words}") as (figure, axes):
        axes.step(front["cost"], front["mean"], where="post", color=palette.MUTED, linewidth=1.1)
        for is_on, (_, row) in zip(on_front, points.iterrows(), strict=True):
            how = context.styles[row["estimator_label"]]
            axes.plot(row["cost"], row["mean"], how.marker, color=how.hex, markersize=7 if is_on else 5.5,
                      markerfacecolor=how.hex if is_on else "none", alpha=1 if is_on else 0.8)  # fmt: skip
        finish(axes, f"Quality against {title}", words, metric.axis)
        if points["cost"].min() > 0 and points["cost"].max() > 12 * points["cost"].min():
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(0.08)
        _name_front(axes, front)
        digits = metric.digits - 1
        spoken = "; ".join(
            f"{row['setting']}: {row['cost']:.3g} and {row['mean']:.{digits}f}" for _, row in front.iterrows()
        )
        return inline(figure, f"{metric.title} against {words}. On the front: {spoken}.")


def _name_front(axes: Axes, front: pd.DataFrame) -> None:
    """Write the names of at most five settings of the front, spread over it."""
    shown = (
        front.iloc[np.unique(np.linspace(0, len(front) - 1, min(5, len(front))).astype(int))] if len(front) else front
    )
    for _, row in shown.iterrows():
        annotate(axes, short(str(row["setting"]), 34), row["cost"], row["mean"])
