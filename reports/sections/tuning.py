"""What a search over settings found, and what it gained: a section of tuned sweeps alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.comparison import Metric
from reports.comparison import tuning as found
from reports.page import numbers
from reports.page.axes import finish, legend, one_panel
from reports.page.blocks import Block, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context
from reports.page.palette import Styles, styles
from reports.page.svg import Panel, inline
from reports.page.table import Cell, Column, Table
from reports.store.tuning import Tuning

HOW = (
    "Each competitor had {n} trials with the same draws, trained as long as the final runs and judged on validation "
    "data. Its best trial was run again with the seeds of the grid, which no trial has had: all other sections are "
    "about these runs. The best of n trials is the mean over all ways to draw n of the trials that were made. A line "
    "that still falls at its right end says that more trials would help. A competitor that loses little at its median "
    "trial needs little tuning."
)


def section(context: Context) -> Section:
    """Show what was chosen, how the best depends on the number of trials, every trial, and what tuning gained."""
    tuning, metric = context.runs.tuning, context.primary
    if tuning is None or metric is None:
        return Section("tuning", "Tuning", [Words("No final run has finished yet.", "empty")])
    validation = context.runs.measures[context.runs.tasks[0]][0].validation
    best = found.chosen(tuning, validation, metric.sign)
    style = _styles(best)
    blocks: list[Block] = [Heading("Chosen", f"best of the trials by {validation}, {metric.per}")]
    blocks += [Words(line, "warn") for line in _at_borders(best)]
    blocks.append(Tabular(_chosen_table(best, validation, metric), "tuning", best.drop(columns=["values", "border"])))
    blocks += [Heading("Trials"), Pictures("tuning", _panels(tuning, best, validation, metric, style), legend=False)]
    gain = found.gained(context.frame, tuning, metric)
    if len(gain) and len(tuning.defaults):
        blocks += [Heading("Default against tuned", f"final runs, {metric.axis}")]
        blocks.append(Tabular(_gain_table(gain, metric), "tuned-default", gain))
    return Section("tuning", "Tuning", [*blocks, How(HOW.format(n=int(best["n_trials"].max()) if len(best) else 0))])


def _styles(best: pd.DataFrame) -> Styles:
    return styles(zip(best["estimator"], best["competitor"], strict=True)) if len(best) else {}


def _at_borders(best: pd.DataFrame) -> list[str]:
    """Return a warning for each competitor whose best trial is at the border of the search space."""
    return [
        f"{row['competitor']}: the best trial is at the border of {', '.join(row['border'])}. A wider space may hold"
        " better settings."
        for _, row in best.iterrows()
        if row["border"]
    ]


def _chosen_table(best: pd.DataFrame, validation: str, metric: Metric) -> Table:
    paths = list(dict.fromkeys(path for values in best["values"] for path in values))
    columns = [
        Column("Competitor", numeric=False, meaning="what was tuned"),
        *(Column(path, numeric=True) for path in paths),
        Column("Best", meaning=f"{validation} of the best trial"),
        Column("Loss at median", meaning="what the median trial is worse by"),
        Column("Trials", meaning="trials, and how many of them failed"),
    ]
    rows = []
    for _, row in best.iterrows():
        failed = f", {row['n_failed']} failed" if row["n_failed"] else ""
        rows.append([
            Cell(row["competitor"], row["competitor"], estimator=row["estimator"]),
            *(_value(row["values"].get(path)) for path in paths),
            Cell(numbers.fixed(row["best"], metric.digits), row["best"]),
            Cell(numbers.fixed(row["loss"], metric.digits), numbers.sortable(row["loss"])),
            Cell(f"{row['n_trials']}{failed}", row["n_trials"], tone="warn" if failed else ""),
        ])  # fmt: skip
    return Table(f"Chosen settings, by {validation} of {metric.title}", columns, rows)


def _value(value: Any) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return Cell("–")
    return Cell(f"{value:.4g}", float(value)) if isinstance(value, int | float) else Cell(str(value), str(value))


def _panels(tuning: Tuning, best: pd.DataFrame, validation: str, metric: Metric, style: Styles) -> list[Panel]:
    """Return the best of n trials against n, and every trial against each number that was searched."""
    scores = found.scores(tuning.trials, validation, metric.sign)
    trials = tuning.trials.assign(score=scores)
    limit = _limit(scores[np.isfinite(scores)].to_numpy(dtype=float))
    panels = [_best_panel(trials, best, validation, metric, style)]
    for path, searched in tuning.space.items():
        if "low" in searched and found.column(path) in trials:
            panels.append(_trial_panel(trials, path, searched, limit, validation, metric, style))
    return panels


def _limit(values: np.ndarray) -> float:
    """Return where the axis of the trials ends: far enough for three of four, so that the best can be told apart."""
    if not len(values):
        return math.inf
    low, middle = float(values.min()), float(np.quantile(values, 0.75))
    return middle + 0.5 * (middle - low) if middle > low else math.inf


def _best_panel(trials: pd.DataFrame, best: pd.DataFrame, validation: str, metric: Metric, style: Styles) -> Panel:
    with one_panel("best-of-trials") as (figure, axes):
        drawn, said = list[Line2D](), []
        for _, row in best.iterrows():
            name, values = row["competitor"], trials.loc[trials["competitor"] == row["competitor"], "score"].to_numpy()
            means = [metric.sign * one.mean for one in found.best_so_far(values, len(values))]
            shown = [(n, mean) for n, mean in enumerate(means, 1) if math.isfinite(mean)]
            how = style[name]
            xs, ys = [n for n, _ in shown], [mean for _, mean in shown]
            drawn += axes.plot(xs, ys, color=how.hex, dashes=how.dashes or (None, None), linewidth=1.8)
            said.append(f"{name} {numbers.fixed(means[-1], metric.digits)}")
        axes.set_xlim(left=1)
        finish(axes, "Best of n trials", "trials", f"{validation}, {metric.per}")
        legend(axes, drawn, list(best["competitor"]), 40, fontsize=8.5)
        return inline(figure, f"Expected best of n trials against n; with all trials: {'; '.join(said)}.")


def _trial_panel(
    trials: pd.DataFrame,
    path: str,
    searched: Any,
    limit: float,
    validation: str,
    metric: Metric,
    style: Styles,
) -> Panel:
    with one_panel(f"trials-{path}") as (figure, axes):
        shown = trials[trials["competitor"].isin(style) & trials[found.column(path)].notna()]
        outside = shown["score"] > limit
        for name, group in shown[~outside].groupby("competitor", sort=True):
            how = style[str(name)]
            x, y = group[found.column(path)].astype(float), metric.sign * group["score"]
            axes.plot(x, y, linestyle="", marker=how.marker, color=how.hex, markersize=5, alpha=0.85)
        finish(axes, path, path, f"{validation}, {metric.per}")
        if searched.get("scale") == "log":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        left = f" {int(outside.sum())} of {len(shown)} trials, the worst, lie outside." if outside.any() else ""
        return inline(figure, f"{validation} of every trial against {path}.{left}")


def _gain_table(gain: pd.DataFrame, metric: Metric) -> Table:
    digits = metric.digits
    columns = [
        Column("Competitor", numeric=False),
        Column("Rank, default"),
        Column("Rank, tuned"),
        Column("Default", meaning="mean of the settings as the grid has them"),
        Column("Tuned", meaning="mean of the chosen settings"),
        Column("Tuned − default", meaning="mean of the differences, paired by seed"),
        Column("95 % interval", meaning="Student's t, of that mean; – with fewer than three pairs"),
    ]
    rows = []
    for _, row in gain.iterrows():
        moved = row["tuned_rank"] != row["default_rank"]
        rows.append([
            Cell(row["competitor"], row["competitor"], estimator=row["estimator"]),
            Cell(str(row["default_rank"]), int(row["default_rank"])),
            Cell(str(row["tuned_rank"]), int(row["tuned_rank"]), tone="strong" if moved else ""),
            *(Cell(numbers.fixed(row[name], digits), row[name]) for name in ("default", "tuned")),
            Cell(numbers.fixed(row["difference"], digits, signed=True), row["difference"]),
            Cell(numbers.interval(row["low"], row["high"], digits, signed=True)),
        ])  # fmt: skip
    return Table(f"Default against tuned settings, {metric.axis}, {metric.better} is better", columns, rows)
