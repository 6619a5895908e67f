"""The report's figures: each function returns panels, small pictures that a phone shows one below the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.ambient import put_aside
from reports.comparison import SETTING, Metric, choose_baseline, difference_points, metrics
from reports.comparison import differences as differences_of
from reports.comparison import levels as levels_of
from reports.contract.settings import SEPARATOR, joined
from reports.contract.stored_run import FINISHED, VAL_LOSS
from reports.page import palette
from reports.page.palette import Style
from reports.page.svg import Panel, inline, short, style
from reports.store.frame import WORST

if TYPE_CHECKING:
    from reports.page.context import Context

Styles = Mapping[str, Style]
MAX_THIN_LINES = 60  # a panel with more runs shows the quartiles instead of a line each
CROWDED = 20  # a panel with more runs, and more than two schedules of one estimator, shows the medians only
MAX_TOGETHER = 6  # more estimators than this get a panel each
SIZE = (4.4, 3.1)


@put_aside()
def curves(
    history: pd.DataFrame, metric: str = VAL_LOSS, x: str = "step", styles: Styles | None = None, words: str = ""
) -> list[Panel]:
    """Plot ``metric`` against ``x`` (step or elapsed_s): a thin line per run, a thick one for the median over seeds.

    ``history`` is ``Runs.history``. A notebook shows each panel as it is.
    ``words`` is the label of the y axis; by default the metric's name, in nats per example.
    """
    data = history[np.isfinite(history[metric].astype(float))] if metric in history else history.iloc[:0]
    if data.empty:
        return []
    limits, styles = _limits(data, metric), styles or styles_of(data)
    return [
        _curve_panel(part, metric, x, styles, title, limits, number, words or f"{metric}, nats per example")
        for number, (title, part) in enumerate(_facets(data))
    ]


def summary(
    history: pd.DataFrame, metric: str, x: str, styles: Styles, words: str, title: str = "All schedules"
) -> list[Panel]:
    """Plot one panel instead of many: a line per estimator, the median over all of its runs."""
    data = history[np.isfinite(history[metric].astype(float))] if metric in history else history.iloc[:0]
    if data.empty:
        return []
    with style(f"summary-{metric}-{x}"):
        figure = Figure((5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for label, group in data.groupby("estimator_label", sort=True):
            how = styles[str(label)]
            _median_line(axes, _median_curve(group, metric, x), x, how, how.dash, 1.7)
        axes.set_ylim(*_limits(data, metric))
        axes.set_xlim(left=0)
        finish(axes, title, "training step" if x == "step" else "training time, s", words)
        return [inline(figure, f"{metric} against {x}, medians: {_spoken(data, metric)}.", wide=True)]


def n_panels(history: pd.DataFrame, metric: str) -> int:
    """Return how many panels `curves` would make."""
    return len(_facets(history[history[metric].notna()])) if metric in history else 0


def styles_of(frame: pd.DataFrame) -> Styles:
    """Return the style of every estimator label of a frame."""
    return palette.styles(zip(frame["estimator"], frame["estimator_label"], strict=True))


@put_aside()
def levels(runs: pd.DataFrame, metric: str | None = None) -> Panel | None:
    """Plot every run of ``Runs.runs`` as a point, and each setting's mean with its interval; None if none finished."""
    chosen = metrics(runs, first=metric)
    found = levels_of(runs, chosen[0].name, bad_is_worst=chosen[0].compared) if chosen else None
    return level_plot(runs, found, chosen[0], styles_of(runs)) if found is not None else None


@put_aside()
def differences(runs: pd.DataFrame, baseline: str | None = None, metric: str | None = None) -> Panel | None:
    """Plot paired differences of ``Runs.runs`` to a baseline; None if nothing can be paired."""
    chosen, other = metrics(runs, first=metric), choose_baseline(runs, baseline)
    rows = differences_of(runs, chosen[0].name, other) if chosen else pd.DataFrame()
    if not len(rows):
        return None
    points = difference_points(runs, chosen[0].name, rows)
    return difference_plot(rows, points, chosen[0], other.label, styles_of(runs))


def _facets(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return a part of the data for each panel: schedule, device and axes. Estimators without a temperature are in all.

    With too many estimators, each gets a panel.
    """
    facets: list[tuple[str, pd.DataFrame]] = []
    for (device, axes), part in data.groupby(["device", "axes"], sort=True):
        where = [str(part_of) for part_of in (device if data["device"].nunique() > 1 else "", axes) if part_of]
        if part["estimator_label"].nunique() > MAX_TOGETHER:
            by_label = part.groupby("estimator_label", sort=True)
            facets += [(joined(str(label), *where), group) for label, group in by_label]
            continue
        free = part["schedule_label"].isna()
        for schedule in sorted(set(part.loc[~free, "schedule_label"])):
            facets.append((joined(str(schedule), *where), part[free | (part["schedule_label"] == schedule)]))
        if free.all():
            facets.append((joined("no temperature", *where), part))
    return facets


def _limits(data: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Return one y axis for all panels. The first tenth of training may be cut off, so that the end can be seen."""
    late = data[data["epoch"] > 0.1 * data["epoch"].max()] if data["epoch"].max() > 3 else data
    low, high = float(data[metric].min()), float(late[metric].quantile(0.99))
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _curve_panel(
    part: pd.DataFrame,
    metric: str,
    x: str,
    styles: Styles,
    title: str,
    limits: tuple[float, float],
    number: int,
    words: str,
) -> Panel:
    with style(f"{metric}-{x}-{number}"):
        figure = Figure(SIZE, layout="constrained")
        axes = figure.add_subplot()
        n_runs = part["run_key"].nunique()
        if n_runs > CROWDED and part["schedule_label"].nunique() > 2:
            _schedule_curves(axes, part, metric, x, styles)
        else:
            _run_curves(axes, part, metric, x, styles, thin=n_runs <= MAX_THIN_LINES)
        axes.set_ylim(*limits)
        axes.set_xlim(left=0)
        finish(axes, title, "training step" if x == "step" else "training time, s", words)
        hidden = int((part[metric] > limits[1]).sum())
        cut = f" {hidden} early points lie above the axis." if hidden else ""
        alt = f"{metric} against {x}, {title}: {_spoken(part, metric)}.{cut}"
        return inline(figure, alt)


def _run_curves(axes: Axes, part: pd.DataFrame, metric: str, x: str, styles: Styles, *, thin: bool) -> None:
    """Draw a thin line per run or a band, and the median, in the colour and dash of the estimator."""
    for (label, schedule), group in part.groupby(["estimator_label", "schedule_label"], sort=True, dropna=False):
        how, middle = styles[str(label)], _median_curve(group, metric, x)
        if thin:
            for _, run in group.sort_values(x, kind="stable").groupby("run_key"):
                axes.plot(run[x], run[metric], color=how.hex, linewidth=0.9, alpha=0.5)
        else:
            axes.fill_between(middle[x], middle["low"], middle["high"], color=how.hex, alpha=0.18, linewidth=0)
        _median_line(axes, middle, x, how, how.dash)
        _ends(axes, group, metric, x, how)
        if part["schedule_label"].nunique() > 2:
            _end_label(axes, group, metric, x, _schedule(schedule))


def _schedule_curves(axes: Axes, part: pd.DataFrame, metric: str, x: str, styles: Styles) -> None:
    """Draw the medians of one estimator's schedules, each with its dash; the legend is in the order of their ends."""
    drawn = []
    for number, (schedule, group) in enumerate(part.groupby("schedule_label", sort=True, dropna=False)):
        how, middle = styles[str(group["estimator_label"].iloc[0])], _median_curve(group, metric, x)
        width = 1.9 if number < len(palette.DASHES) else 1.1
        drawn.append(
            (-middle["median"].iloc[-1], _schedule(schedule), _median_line(axes, middle, x, how, number, width))
        )
        _ends(axes, group, metric, x, how)
    drawn.sort(key=lambda each: each[:2])
    legend(axes, [line for _, _, line in drawn], [name for _, name, _ in drawn], 44, fontsize=7.5, labelspacing=0.3)


def legend(axes: Axes, lines: Sequence[Line2D], names: Sequence[str], length: int, **how: Any) -> None:
    """Add a legend of exactly these lines. matplotlib would leave out names that begin with an underscore."""
    made = axes.legend(lines, ["" for _ in names], frameon=False, loc="best", handlelength=3, **how)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(short(name, length))


def _schedule(label: object) -> str:
    return "no temperature" if pd.isna(label) else str(label)


def _median_line(axes: Axes, middle: pd.DataFrame, x: str, how: Style, dash: int, width: float = 2) -> Line2D:
    shown = middle[np.isfinite(middle["median"])]
    marker = how.marker if len(shown) < 2 else None
    return axes.plot(shown[x], shown["median"], color=how.hex, linewidth=width, marker=marker, markersize=6,
                     linestyle=palette.line(dash))[0]  # fmt: skip


def _ends(axes: Axes, group: pd.DataFrame, metric: str, x: str, how: Style) -> None:
    """Draw a cross where a run failed or diverged."""
    ended = group[group["status"].isin(WORST)].sort_values("epoch").groupby("run_key").tail(1)
    axes.plot(ended[x], ended[metric], linestyle="none", marker="x", markersize=7, markeredgewidth=1.8, color=how.hex)


def _median_curve(group: pd.DataFrame, metric: str, x: str) -> pd.DataFrame:
    """Return median and quartiles by epoch; a run that failed or diverged counts as worst after its end."""
    table = group.pivot_table(index="epoch", columns="run_key", values=metric, aggfunc="last")
    bad = set(group.loc[group["status"].isin(WORST), "run_key"])
    for key in bad & set(table.columns):
        table.loc[table.index > table[key].last_valid_index(), key] = math.inf
    with np.errstate(invalid="ignore"):
        quartiles = table.quantile([0.25, 0.5, 0.75], axis=1).T.set_axis(["low", "median", "high"], axis=1)
    return pd.DataFrame({x: group.groupby("epoch")[x].median(), **quartiles}).reset_index()


def _end_label(axes: Axes, group: pd.DataFrame, metric: str, x: str, text: str) -> None:
    last = group.sort_values(x).iloc[-1]
    axes.annotate(
        short(text, 44), (last[x], last[metric]), xytext=(-2, 5), textcoords="offset points", ha="right", fontsize=8
    )


def _spoken(part: pd.DataFrame, metric: str) -> str:
    ends = part.sort_values("epoch").groupby(["estimator_label", "run_key"])[metric].last().groupby(level=0).median()
    return "; ".join(f"{label} ends at a median of {value:.1f}" for label, value in ends.sort_values().items())


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title, labels, grid and ticks."""
    axes.set_title(short(title, 100), pad=9)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    axes.tick_params(length=3, width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))


@put_aside()
def temperatures(history: pd.DataFrame) -> list[Panel]:
    """Plot τ against the training step, a line per schedule: τ depends on the schedule, not on the estimator."""
    if "tau" not in history or history["tau"].notna().sum() == 0:
        return []
    data = history[history["tau"].notna()]
    data = data.assign(schedule_label=data["schedule_label"].map(_schedule))  # an older store may name none
    with style("tau"):
        figure = Figure((5.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
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


def annotate(axes: Axes, text: str, x: float, y: float) -> None:
    """Write a small name beside a mark, on the side with room for it. Call it once the axes are drawn."""
    low, high = axes.transData.transform([(axes.get_xlim()[0], y), (axes.get_xlim()[1], y)])[:, 0]
    left = axes.transData.transform((x, y))[0] < (low + high) / 2
    written = axes.annotate(text, (x, y), xytext=(7 if left else -7, 5), textcoords="offset points", fontsize=8,
                            ha="left" if left else "right")  # fmt: skip
    written.set_in_layout(False)  # a long name must not squeeze the axes


def difference_plot_of(context: Context, metric: Metric) -> Panel | None:
    """Plot the paired differences of a report's settings to its baseline; None if nothing can be paired."""
    rows = context.differences(metric)
    if not len(rows):
        return None
    points = difference_points(context.compared, metric.name, rows)
    return difference_plot(rows, points, metric, context.baseline.label, context.look)


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


def _name(row: pd.Series, frame: pd.DataFrame) -> str:
    return f"{row['setting']}{SEPARATOR}{row['device']}" if frame["device"].nunique() > 1 else str(row["setting"])


MAX_ROWS = 40


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
    with style(f"{metric.name}-{zero}"):
        figure = Figure((4.9, 0.85 + 0.46 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
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
            text = f"{short(name, 72 - len(note))}, {note}" if note else short(name, 72)
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
        spoken = "; ".join(f"{name}: mean {row['mean']:.2f}, interval {row['low']:.2f} to {row['high']:.2f}"
                           for name, points, row, _ in shown if len(points))  # fmt: skip
        return inline(figure, f"{metric.title}: {title}. {spoken}.".replace("nan to nan", "none"))
