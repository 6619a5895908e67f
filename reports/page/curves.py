"""Curves over training: losses, other metrics of an epoch, and temperatures."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.contract.measures import HIGHER, LOWER, Better
from reports.contract.settings import axes_text, joined
from reports.contract.stored_run import VAL_LOSS
from reports.page import palette
from reports.page.axes import finish, legend, one_panel
from reports.page.palette import Style, Styles, styles_of
from reports.page.svg import Panel, inline, short
from reports.process_settings import default_settings
from reports.store.frame import WORST

MAX_THIN_LINES = 60  # a panel with more runs shows the quartiles instead of a line each
CROWDED = 20  # a panel with more runs, and more than two schedules of one estimator, shows the medians only
MAX_TOGETHER = 6  # more estimators than this get a panel each


class _Curve(NamedTuple):
    """What is drawn over what, which direction is better, and the decimals of a value in words."""

    metric: str
    x: str
    better: Better
    digits: int


@default_settings()
def curves(
    history: pd.DataFrame,
    metric: str = VAL_LOSS,
    x: str = "step",
    styles: Styles | None = None,
    words: str = "",
    better: Better = LOWER,
    digits: int = 1,
) -> list[Panel]:
    """Plot ``metric`` against ``x`` (step or elapsed_s): a thin line per run, a thick one for the median over seeds.

    ``history`` is ``Runs.history``. A notebook shows each panel as it is.
    ``words`` is the label of the y axis; by default the metric's name, in nats per example.
    ``better`` says which end of the axis may be cut off, and on which side a failed run counts.
    """
    data = history[np.isfinite(history[metric].astype(float))] if metric in history else history.iloc[:0]
    if data.empty:
        return []
    limits, styles = _limits(data, metric, better), styles or styles_of(data)
    curve = _Curve(metric, x, better, digits)
    return [
        _curve_panel(part, curve, styles, title, limits, number, words or f"{metric}, nats per example")
        for number, (title, part) in enumerate(_facets(data))
    ]


def summary(
    history: pd.DataFrame,
    metric: str,
    x: str,
    styles: Styles,
    words: str,
    better: Better = LOWER,
    digits: int = 1,
) -> list[Panel]:
    """Plot one panel instead of many: a line per estimator, the median over all of its runs."""
    data = history[np.isfinite(history[metric].astype(float))] if metric in history else history.iloc[:0]
    if data.empty:
        return []
    curve = _Curve(metric, x, better, digits)
    with one_panel(f"summary-{metric}-{x}", (5.2, 3.2)) as (figure, axes):
        for label, group in data.groupby("estimator_label", sort=True):
            how = styles[str(label)]
            _median_line(axes, _median_curve(group, curve), x, how, how.dash, 1.7)
        axes.set_ylim(*_limits(data, metric, better))
        axes.set_xlim(left=0)
        finish(axes, "All schedules", "training step" if x == "step" else "training time, s", words)
        return [inline(figure, f"{metric} against {x}, medians: {_spoken(data, curve)}.", wide=True)]


def n_panels(history: pd.DataFrame, metric: str) -> int:
    """Return how many panels `curves` would make."""
    return len(_facets(history[history[metric].notna()])) if metric in history else 0


@default_settings()
def temperatures(history: pd.DataFrame) -> list[Panel]:
    """Plot τ against the training step, a line per schedule: τ depends on the schedule, not on the estimator."""
    if "tau" not in history or history["tau"].notna().sum() == 0:
        return []
    data = history[history["tau"].notna()]
    data = data.assign(schedule_label=data["schedule_label"].map(_schedule))  # an older store may have none
    with one_panel("tau", (5.4, 3.0)) as (figure, axes):
        names, drawn = sorted(set(data["schedule_label"])), list[Line2D]()
        for number, name in enumerate(names):
            line = data[data["schedule_label"] == name].groupby("step")["tau"].median()
            marker = "o" if len(line) < 2 else None
            shade = (palette.INK, palette.MUTED)[number // len(palette.DASHES) % 2]
            dash = palette.line(number)
            drawn += axes.plot(line.index, line, color=shade, linewidth=1.8, marker=marker, linestyle=dash)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        finish(axes, "Temperature", "training step", "τ at the end of the epoch")
        legend(axes, drawn, names, 60, fontsize=8.5)
        spans = [f"{name} from {part['tau'].iloc[0]:.3g} to {part['tau'].iloc[-1]:.3g}"
                 for name, part in data.sort_values("step").groupby("schedule_label")]  # fmt: skip
        return [inline(figure, "Temperature against the training step: " + "; ".join(spans) + ".")]


def _facets(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return a part of the data for each panel: schedule, device and axes. Estimators without a temperature are in all.

    Estimators that have these for themselves share a panel. With too many estimators, each gets one.
    """
    facets: list[tuple[str, pd.DataFrame]] = []
    shared = "shared_axes" if "shared_axes" in data else "axes"
    for (device, axes), part in data.groupby(["device", shared], sort=True):
        where = [str(part_of) for part_of in (device if data["device"].nunique() > 1 else "", axes) if part_of]
        if part["estimator_label"].nunique() > MAX_TOGETHER:
            by_label = part.groupby("estimator_label", sort=True)
            facets += [(joined(str(label), *where), group) for label, group in by_label]
            continue
        free = part["schedule_label"].isna()
        schedules = part[~free].groupby("estimator_label")["schedule_label"].nunique()
        if len(schedules) > 1 and part.loc[~free, "schedule_label"].nunique() > 1 and schedules.max() == 1:
            facets.append((joined("each at its own schedule", *where), part))
            continue
        for schedule in sorted(set(part.loc[~free, "schedule_label"])):
            facets.append((joined(str(schedule), *where), part[free | (part["schedule_label"] == schedule)]))
        if free.all():
            facets.append((joined("no temperature", *where), part))
    return facets


def _limits(data: pd.DataFrame, metric: str, better: Better) -> tuple[float, float]:
    """Return one y axis for all panels. The first tenth of training may be cut off, so that the end can be seen."""
    late = data[data["epoch"] > 0.1 * data["epoch"].max()] if data["epoch"].max() > 3 else data
    low, high = float(data[metric].min()), float(late[metric].quantile(0.99))
    if better == HIGHER:
        low, high = float(late[metric].quantile(0.01)), float(data[metric].max())
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _curve_panel(
    part: pd.DataFrame,
    curve: _Curve,
    styles: Styles,
    title: str,
    limits: tuple[float, float],
    number: int,
    words: str,
) -> Panel:
    metric, x, better, _ = curve
    with one_panel(f"{metric}-{x}-{number}") as (figure, axes):
        n_runs = part["run_key"].nunique()
        is_one = part["estimator_label"].nunique() == 1
        if is_one and n_runs > CROWDED and part["schedule_label"].nunique() > 2:
            _schedule_curves(axes, part, curve, styles)
        else:
            _run_curves(axes, part, curve, styles, thin=n_runs <= MAX_THIN_LINES)
        axes.set_ylim(*limits)
        axes.set_xlim(left=0)
        finish(axes, title, "training step" if x == "step" else "training time, s", words)
        outside = part[metric] < limits[0] if better == HIGHER else part[metric] > limits[1]
        side = "below" if better == HIGHER else "above"
        cut = f" {int(outside.sum())} early points lie {side} the axis." if outside.any() else ""
        alt = f"{metric} against {x}, {title}: {_spoken(part, curve)}.{cut}"
        return inline(figure, alt)


def _run_curves(axes: Axes, part: pd.DataFrame, curve: _Curve, styles: Styles, *, thin: bool) -> None:
    """Draw a thin line per run or a band, and the median, in the colour and dash of the estimator."""
    metric, x, *_ = curve
    counts = part.groupby("estimator_label")[["schedule_label", "axes"]].nunique()
    n_axes = dict(zip(map(str, counts.index), counts["axes"], strict=True))
    names_schedules = part["schedule_label"].nunique() > 2 and counts["schedule_label"].max() > 1
    by = ["estimator_label", "schedule_label", "axes"]
    for (label, schedule, _), group in part.groupby(by, sort=True, dropna=False):
        how, middle = styles[str(label)], _median_curve(group, curve)
        if thin:
            for _, run in group.sort_values(x, kind="stable").groupby("run_key"):
                axes.plot(run[x], run[metric], color=how.hex, linewidth=0.9, alpha=0.5)
        else:
            axes.fill_between(middle[x], middle["low"], middle["high"], color=how.hex, alpha=0.18, linewidth=0)
        _median_line(axes, middle, x, how, how.dash)
        _ends(axes, group, metric, x, how)
        own = _own(group) if n_axes[str(label)] > 1 else None
        if at_end := joined(_schedule(schedule) if names_schedules else None, own):
            _end_label(axes, group, metric, x, at_end)


def _schedule_curves(axes: Axes, part: pd.DataFrame, curve: _Curve, styles: Styles) -> None:
    """Draw the medians of one estimator's schedules, each with its dash; the legend is in the order of their ends."""
    metric, x, *_ = curve
    drawn = []
    by = ["schedule_label", "axes"]
    for number, ((schedule, _), group) in enumerate(part.groupby(by, sort=True, dropna=False)):
        how, middle = styles[str(group["estimator_label"].iloc[0])], _median_curve(group, curve)
        width = 1.9 if number < len(palette.DASHES) else 1.1
        name = joined(_schedule(schedule), _own(group) if part["axes"].nunique() > 1 else None)
        drawn.append((-middle["median"].iloc[-1], name, _median_line(axes, middle, x, how, number, width)))
        _ends(axes, group, metric, x, how)
    drawn.sort(key=lambda each: each[:2])
    legend(axes, [line for _, _, line in drawn], [name for _, name, _ in drawn], 44, fontsize=7.5, labelspacing=0.3)


def _schedule(label: Any) -> str:
    return "no temperature" if pd.isna(label) else str(label)


def _own(group: pd.DataFrame) -> str:
    """Return the fields that the estimator of a line has for itself, ``lr=0.001``."""
    return axes_text(group["own_axes"].iloc[0]) if "own_axes" in group else str(group["axes"].iloc[0])


def _median_line(axes: Axes, middle: pd.DataFrame, x: str, how: Style, dash: int, width: float = 2) -> Line2D:
    shown = middle[np.isfinite(middle["median"])]
    marker = how.marker if len(shown) < 2 else None
    return axes.plot(shown[x], shown["median"], color=how.hex, linewidth=width, marker=marker, markersize=6,
                     linestyle=palette.line(dash))[0]  # fmt: skip


def _ends(axes: Axes, group: pd.DataFrame, metric: str, x: str, how: Style) -> None:
    """Draw a cross where a run failed or diverged."""
    ended = group[group["status"].isin(WORST)].sort_values("epoch").groupby("run_key").tail(1)
    axes.plot(ended[x], ended[metric], linestyle="none", marker="x", markersize=7, markeredgewidth=1.8, color=how.hex)


def _median_curve(group: pd.DataFrame, curve: _Curve) -> pd.DataFrame:
    """Return median and quartiles by epoch; a run that failed or diverged counts as worst after its end."""
    metric, x, better, _ = curve
    table = group.pivot_table(index="epoch", columns="run_key", values=metric, aggfunc="last")
    bad = set(group.loc[group["status"].isin(WORST), "run_key"])
    for key in bad & set(table.columns):
        table.loc[table.index > table[key].last_valid_index(), key] = -math.inf if better == HIGHER else math.inf
    with np.errstate(invalid="ignore"):
        quartiles = table.quantile([0.25, 0.5, 0.75], axis=1).T.set_axis(["low", "median", "high"], axis=1)
    return pd.DataFrame({x: group.groupby("epoch")[x].median(), **quartiles}).reset_index()


def _end_label(axes: Axes, group: pd.DataFrame, metric: str, x: str, text: str) -> None:
    last = group.sort_values(x).iloc[-1]
    axes.annotate(
        short(text, 44), (last[x], last[metric]), xytext=(-2, 5), textcoords="offset points", ha="right", fontsize=8
    )


def _spoken(part: pd.DataFrame, curve: _Curve) -> str:
    """Return where each estimator ends, the best first."""
    ends = (
        part.sort_values("epoch").groupby(["estimator_label", "run_key"])[curve.metric].last().groupby(level=0).median()
    )
    ends = ends.sort_values(ascending=curve.better != HIGHER)
    return "; ".join(f"{label} ends at a median of {value:.{curve.digits}f}" for label, value in ends.items())
