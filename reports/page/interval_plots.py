"""Interval plots: a row per setting, with its points, its mean and the interval of the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.comparison import SETTING, Metric, difference_points
from reports.comparison.over_tasks import Ranks
from reports.contract.settings import SEPARATOR
from reports.contract.stored_run import FINISHED
from reports.page import palette
from reports.page.axes import finish, one_panel
from reports.page.context import Context
from reports.page.palette import Styles
from reports.page.svg import Panel, inline, short

MAX_ROWS = 40
LONGEST = 80
"""Characters of a name that fit above its row."""


def level_plot(runs: pd.DataFrame, levels: pd.DataFrame, metric: Metric, styles: Styles) -> Panel | None:
    """Plot every run as a point and the mean with its t interval, best setting on top; failures in words."""
    rows = []
    finished = runs[(runs["status"] == FINISHED) & runs[metric.name].notna()]
    by_setting = {key: group.to_numpy(dtype=float) for key, group in finished.groupby(SETTING)[metric.name]}
    for _, row in levels.iterrows():
        points = by_setting.get((row["setting"], row["device"]), np.empty(0))
        note = f"{row['n_bad']} of {row['n_planned']} failed or diverged" if row["n_bad"] else ""
        rows.append((_name(row, levels[levels["n"] > 0]), points, row, note))
    rows = [row for row in rows if len(row[1]) or row[3]]
    return _forest(rows, "Runs and mean of each setting", metric, styles, zero=False)


def difference_plot(
    differences: pd.DataFrame, points: Sequence[np.ndarray], metric: Metric, baseline: str, styles: Styles
) -> Panel | None:
    """Plot the paired differences to the baseline: a point per seed, the mean with its t interval, and zero."""
    rows = []
    for (_, row), mine in zip(differences.iterrows(), points, strict=True):
        name = _name(row, differences)
        same = (differences["setting"] == row["setting"]) & (differences["device"] == row["device"])
        if same.sum() > 1:
            name += f", against {row['against'] or row['versus']}"
        note = f"{row['n_bad']} of {row['n_pairs']} pairs failed" if row["n_bad"] else ""
        rows.append((name, mine[np.isfinite(mine)], row, note))
    return _forest(rows, f"Paired difference to {baseline}", metric, styles, zero=True)


def rank_plot(ranks: Ranks, label_of: Mapping[tuple[str, str], str], styles: Styles) -> Panel | None:
    """Plot the rank of each setting on every task and its mean over the tasks, the best on top; None of no settings.

    ``label_of`` has the estimator's label of each setting and device.
    """
    several = len({device for _, device in ranks.keys}) > 1
    rows = []
    for number, key in enumerate(ranks.keys):
        mean = {"mean": ranks.means[number], "low": math.nan, "high": math.nan, "estimator_label": label_of[key]}
        rows.append((SEPARATOR.join(key) if several else key[0], ranks.table[:, number], pd.Series(mean), ""))
    metric = Metric("rank", "Rank over the tasks", "", digits=2)
    return _forest(rows, f"Rank on each of {len(ranks.table)} tasks", metric, styles, zero=False)


def difference_plot_of(context: Context, metric: Metric) -> Panel | None:
    """Plot the paired differences of a report's settings to its baseline; None if nothing can be paired."""
    rows = context.differences(metric)
    if not len(rows):
        return None
    points = difference_points(context.compared, metric, rows)
    return difference_plot(rows, points, metric, context.baseline.label, context.styles)


def _name(row: pd.Series, frame: pd.DataFrame) -> str:
    return f"{row['setting']}{SEPARATOR}{row['device']}" if frame["device"].nunique() > 1 else str(row["setting"])


def _forest(
    rows: Sequence[tuple[str, np.ndarray, pd.Series, str]],
    title: str,
    metric: Metric,
    styles: Styles,
    *,
    zero: bool,
) -> Panel | None:
    if not any(len(points) for _, points, _, _ in rows):
        return None
    shown = rows[:MAX_ROWS]
    title += f" (first {MAX_ROWS} of {len(rows)})" if len(rows) > MAX_ROWS else ""
    label = f"{'difference in ' if zero else ''}{metric.axis}"
    with one_panel(f"{metric.name}-{zero}", (4.9, 0.85 + 0.46 * len(shown))) as (figure, axes):
        if zero:
            axes.axvline(0, color=palette.INK, linewidth=1)
        for y, (name, points, row, note) in enumerate(shown):
            how = styles[row["estimator_label"]]
            axes.plot(points, np.full(len(points), y), linestyle="none", marker=how.marker, markersize=5,
                      markerfacecolor="none", markeredgecolor=how.hex, markeredgewidth=1, alpha=0.75)  # fmt: skip
            if math.isfinite(row["low"]):
                axes.plot([row["low"], row["high"]], [y, y], color=how.hex, linewidth=2)
            if math.isfinite(row["mean"]):
                axes.plot([row["mean"]], [y], marker="|", markersize=11, markeredgewidth=2.4, color=how.hex)
            text = f"{short(name, LONGEST - len(note))}, {note}" if note else short(name, LONGEST)
            where: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "textcoords": "offset points",
                "annotation_clip": False,
            }
            written = axes.annotate(text, (0, y), xytext=(2, 9.5), fontsize=8.5, va="center", **where)
            written.set_in_layout(False)  # a long name must not squeeze the axes
        axes.set_ylim(len(shown) - 0.5, -0.85)
        axes.spines["left"].set_visible(False)
        finish(axes, title, label, "")
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        digits = metric.digits
        spoken = "; ".join(f"{name}: mean {row['mean']:.{digits}f}, interval {row['low']:.{digits}f} to "
                           f"{row['high']:.{digits}f}" for name, points, row, _ in shown if len(points))  # fmt: skip
        return inline(figure, f"{metric.title}: {title}. {spoken}.".replace("nan to nan", "none"))
