"""Learning curves of measured settings against published points, where a source gives several epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from reports.page import palette
from reports.page.axes import finish, one_panel
from reports.page.palette import Styles
from reports.page.svg import Panel, inline
from reports.sections.published_numbers import Published, numbers

EARLY = 0.1
"""Share of the epochs whose values may lie above the axis, so that the later ones can be told apart."""
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def panels(rows: Sequence[Mapping[str, Any]], history: pd.DataFrame, styles: Styles) -> list[Panel]:
    """Plot a panel per source and metric of which several epochs are published for an estimator that was measured.

    ``rows`` are those of the section's table: they say which setting stands for the estimator.
    """
    found = []
    for number, (source, metric) in enumerate(dict.fromkeys((row["source"], row["metric"]) for row in rows), 1):
        curves = list(_curves([row for row in rows if (row["source"], row["metric"]) == (source, metric)], history))
        if curves:
            found.append(_panel(source, metric, curves, styles, number))
    return found


def _curves(
    rows: Sequence[Mapping[str, Any]], history: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, Sequence[Published]]]:
    """Yield the epochs of each measured setting with the published points that belong to it."""
    for setting, device, estimator in dict.fromkeys((row["setting"], row["device"], row["estimator"]) for row in rows):
        source, metric = rows[0]["source"], rows[0]["metric"]
        known = [one for one in numbers() if (one.source, one.metric, one.estimator) == (source, metric, estimator)]
        points = sorted((one for one in known if one.epoch is not None), key=lambda one: one.epoch or 0)
        mine = history[(history["setting"] == setting) & (history["device"] == device)]
        if len({one.epoch for one in points}) > 1 and metric in mine and mine["epoch"].nunique() > 1:
            yield mine.dropna(subset=[metric]), points


def _panel(
    source: str, metric: str, curves: Sequence[tuple[pd.DataFrame, Sequence[Published]]], styles: Styles, number: int
) -> Panel:
    with one_panel(f"published-{number}") as (figure, axes):
        spoken = []
        for history, points in curves:
            label = str(history["estimator_label"].iloc[0])
            how, mean = styles[label], history.groupby("epoch")[metric].mean()
            for _, run in history.groupby("run_key", sort=True):
                axes.plot(run["epoch"], run[metric], color=how.hex, linewidth=0.8, alpha=0.4)
            axes.plot(mean.index, mean, color=how.hex, linewidth=1.8, linestyle=palette.line(how.dash))
            axes.errorbar(
                [one.epoch or 0 for one in points], [one.mean for one in points], [one.sd or 0 for one in points],
                linestyle="none", marker=how.marker, markersize=6, markerfacecolor="none", color=how.hex, capsize=3,
            )  # fmt: skip
            spoken += [f"{label} is published at {one.mean:.1f} for epoch {one.epoch}" for one in points]
            spoken.append(f"and ends here at {mean.iloc[-1]:.1f} after epoch {mean.index[-1]:g}")
        finish(axes, source.rpartition(", ")[2], "epoch", f"{metric}, nats per example")
        _limits(axes, metric, curves)
        return inline(figure, f"{metric} by epoch, measured and published ({source}). {'; '.join(spoken)}.")


def _limits(axes: Axes, metric: str, curves: Sequence[tuple[pd.DataFrame, Sequence[Published]]]) -> None:
    """Set a logarithmic axis of epochs, and one of values on which the early epochs may be cut off."""
    last = max(max(float(history["epoch"].max()), *(one.epoch or 0 for one in points)) for history, points in curves)
    values = [one.mean + sign * (one.sd or 0) for _, points in curves for one in points for sign in (1, -1)]
    for history, _ in curves:
        values += list(history.loc[history["epoch"] > EARLY * history["epoch"].max(), metric])
    pad = 0.06 * (max(values) - min(values)) or 1.0
    axes.set_ylim(min(values) - pad, max(values) + pad)
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.15 * last)
    ticks = [tick for tick in _TICKS if tick <= last]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
