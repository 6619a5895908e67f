"""How sure the order is, and how an estimator does over all of its settings."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison import Metric
from reports.contract.stored_run import FINISHED, TEST_PREFIX
from reports.page import interval_plots, palette
from reports.page.axes import finish, one_panel
from reports.page.blocks import Block, Heading, How, Pictures, Section, Words
from reports.page.context import Context
from reports.page.svg import Panel, inline
from reports.page.wording import directions
from reports.store.frame import WORST

HOW = (
    "Every open mark is one run (levels) or one pair of runs with the same seed (differences to the baseline); the bar "
    "is the mean with its 95 % interval by Student’s t. In the order of the tables: settings with a failed run last."
)
HOW_PROFILE = (
    "For every value on the horizontal axis, the share of an estimator’s runs that end at it or {below}, over all of "
    "its schedules, other axes and seeds. The further {left} and the steeper, the better and the less it depends on "
    "its settings; a curve that {ends} below 100 % has runs that failed or diverged. The band is a 95 % interval, "
    "point by point; it is drawn where an estimator has one setting, since runs of several settings share their seeds."
)
MIN_RUNS_FOR_BAND = 4
MANY = 50
"""With this many runs, the axis may leave out the worst of them."""


def section(context: Context) -> Section:
    """Show interval plots of every metric, and the performance profile of the first."""
    blocks: list[Block] = []
    for metric in context.metrics:
        panels = [interval_plots.level_plot(context.compared, context.levels(metric), metric, context.styles)]
        if metric is not context.primary:  # that plot is under the verdict
            panels.append(interval_plots.difference_plot_of(context, metric))
        if shown := [panel for panel in panels if panel is not None]:
            blocks += [Heading(metric.title), Pictures(f"intervals-{_file(metric.name)}", shown)]
    if not blocks:
        return Section("intervals", "Intervals and profile", [Words(f"{context.without_numbers} yet.", "empty")])
    blocks.append(How(HOW))
    if context.primary is not None and (panel := profile(context, context.primary)):
        blocks += [Heading("Performance profile"), Pictures("profile", [panel], legend=True)]
        left, ends = ("left", "ends") if context.primary.sign > 0 else ("right", "begins")
        blocks.append(How(HOW_PROFILE.format(left=left, ends=ends, **directions([context.primary]))))
    return Section("intervals", "Intervals and profile", blocks)


def _file(metric: str) -> str:
    """Return the metric as a part of a file's name: different metrics have different files."""
    return re.sub(r"[^\w.]+", "-", metric.removeprefix(TEST_PREFIX))[:100].replace("_", "-")


def profile(context: Context, metric: Metric) -> Panel | None:
    """Plot the share of the runs of each estimator that end at a value or below; or above, where higher is better."""
    values = _by_estimator(context.frame, metric)
    finite = np.concatenate([found[np.isfinite(found)] for found in values.values()]) if values else np.empty(0)
    if len(finite) < 2 or np.ptp(finite) == 0:
        return None
    low, high = finite.min(), np.quantile(finite, 0.98) if len(finite) >= MANY else finite.max()
    edge = 0.04 * (high - low)
    x = np.unique(np.concatenate([[low - edge, high + edge], finite[finite <= high + edge]]))
    shown = metric.sign * x
    with one_panel("profile", (5.2, 3.2)) as (figure, axes):
        several = context.frame.groupby("estimator_label")["setting"].nunique() > 1
        for label, found in values.items():
            how = context.styles[label]
            if len(found) >= MIN_RUNS_FOR_BAND and not several[label]:
                band = st.profile_band(found, x)
                axes.fill_between(shown, *band, step="post", color=how.hex, alpha=0.1, linewidth=0)
            axes.step(shown, st.performance_profile(found, x), where="post", color=how.hex, linewidth=1.9,
                      linestyle=palette.line(how.dash))  # fmt: skip
        finish(axes, "Performance profile", metric.axis, f"share of runs at it or {directions([metric])['below']}")
        axes.set_ylim(0, 1.02)
        axes.set_xlim(min(shown[0], shown[-1]), max(shown[0], shown[-1]))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        spoken = "; ".join(f"{label}: half of its runs at {_half(found, metric)}" for label, found in values.items())
        return inline(figure, f"Performance profile of {metric.title}. {spoken}.", wide=True)


def _half(values: np.ndarray, metric: Metric) -> str:
    middle = metric.sign * float(np.sort(values)[(len(values) - 1) // 2])
    return f"{middle:.{metric.digits - 1}f} or {directions([metric])['below']}" if np.isfinite(middle) else "no value"


def _by_estimator(runs: pd.DataFrame, metric: Metric) -> dict[str, np.ndarray]:
    """Return the values of all runs of an estimator that were tried to the end, turned so that lower is better.

    Those that failed are ``inf``.
    """
    tried = runs[runs["status"].isin((*WORST, FINISHED))]
    values = (metric.sign * tried[metric.name]).where(tried["status"] == FINISHED, np.inf).astype(float)
    there = values.notna()
    groups = values[there].groupby(tried.loc[there, "estimator_label"], sort=True)
    return {str(label): group.to_numpy() for label, group in groups}
