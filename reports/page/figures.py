"""The figures of a notebook: `from reports import figures`."""

from __future__ import annotations

import pandas as pd

from reports.comparison import choose_baseline, difference_points, metrics
from reports.comparison import differences as differences_of
from reports.comparison import levels as levels_of
from reports.page.curves import curves, temperatures
from reports.page.interval_plots import difference_plot, level_plot
from reports.page.palette import styles_of
from reports.page.svg import Panel
from reports.process_settings import default_settings

__all__ = ["curves", "differences", "levels", "temperatures"]


@default_settings()
def levels(runs: pd.DataFrame, metric: str | None = None) -> Panel | None:
    """Plot every run of ``Runs.runs`` as a point, and each setting's mean with its interval; None if none finished."""
    chosen = metrics(runs, first=metric)
    found = levels_of(runs, chosen[0]) if chosen else None
    return level_plot(runs, found, chosen[0], styles_of(runs)) if found is not None else None


@default_settings()
def differences(runs: pd.DataFrame, baseline: str | None = None, metric: str | None = None) -> Panel | None:
    """Plot paired differences of ``Runs.runs`` to a baseline; None if nothing can be paired."""
    chosen, other = metrics(runs, first=metric), choose_baseline(runs, baseline)
    rows = differences_of(runs, chosen[0], other) if chosen else pd.DataFrame()
    if not len(rows):
        return None
    points = difference_points(runs, chosen[0], rows)
    return difference_plot(rows, points, chosen[0], other.label, styles_of(runs))
