"""Gradient quality as tables and figures, from the frames of `harness.diagnose` and `harness gradients`.

A frame has one row per estimator: relative_bias, cosine (each with _low and _high), p_value, variance, mse, snr,
evaluations, seconds, and the reason why it was not measured, or an empty text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from reports.contract.atomic_files import write_atomically, write_bytes_atomically
from reports.contract.stored_run import ENCODER_PREFIX
from reports.page import export, palette, svg
from reports.page.numbers import fixed, p_value
from reports.page.svg import Panel, short
from reports.page.table import Cell, Column, Table
from reports.page.template import environment
from reports.page.wording import VAE, Wording
from reports.process_settings import default_settings

BIAS_MEANING = "length of (mean gradient − true gradient) ÷ length of the true one, Monte Carlo noise subtracted"
ERROR_MEANING = (
    "at equal cost: how far the mean of as many draws as 100 evaluations pay for is from the true gradient, root mean"
    " square ÷ its length"
)
COLUMNS = (
    Column("Estimator", numeric=False),
    Column("Rel. bias", meaning=BIAS_MEANING),
    Column("95 % interval", meaning="of the relative bias; from 0 where no bias was found"),
    Column("p", meaning="of the test that there is no bias"),
    Column("Cosine", meaning="between the mean gradient and the true one"),
    Column("Variance", meaning="trace of the covariance of one draw"),
    Column("Error", meaning=ERROR_MEANING),
    Column("SNR", meaning="length of the mean gradient ÷ √variance"),
    Column("Evals", meaning="evaluations of the cost per example and draw, at most"),
    Column("ms", meaning="milliseconds per draw for the whole batch, forward and backward"),
)
ENCODER = (
    Column("{heading} bias", meaning="relative bias on the {parameters}'s parameters; 0: its interval begins there"),
    Column("{heading} cos", meaning="cosine with the true gradient of the {parameters}'s parameters"),
)
LAST_BIAS = 2.0
"""The largest end of the axis of relative biases: a larger bias is no more informative."""
NUMBERS = (
    *("relative_bias", "relative_bias_low", "relative_bias_high", "p_value", "cosine", "cosine_low", "cosine_high"),
    *("variance", "mse", "snr", "relative_error_100", "evaluations", "seconds"),
)
"""The columns of a frame that hold numbers."""


@dataclass(frozen=True)
class Section:
    """One problem, or one epoch: a title, what the truth is, and the frame."""

    title: str
    truth: str
    frame: pd.DataFrame = field(repr=False)
    meaning: str = ""


def table(frame: pd.DataFrame, caption: str, wording: Wording = VAE) -> Table:
    """Return the measured estimators of a frame, in its order, with the encoder's figures if it has them."""
    with_encoder = f"{ENCODER_PREFIX}relative_bias" in frame
    rows = []
    for row in measured(frame).to_dict("records"):
        low, high = row["relative_bias_low"], row["relative_bias_high"]
        rows.append(
            [
                Cell(str(row["estimator"]), str(row["estimator"])),
                Cell(rounded(row["relative_bias"]), _known(row["relative_bias"])),
                Cell(f"[{rounded(low)}, {rounded(high)}]" if np.isfinite(high) else "–", _known(high - low)),
                Cell("–" if np.isnan(row["p_value"]) else p_value(row["p_value"]), _known(row["p_value"])),
                Cell(fixed(row["cosine"], 3), _known(row["cosine"])),
                *(Cell(figures(row[key]), _known(row[key])) for key in ("variance", "relative_error_100", "snr")),
                Cell(fixed(row["evaluations"], 0), _known(row["evaluations"])),
                Cell(figures(1e3 * row["seconds"]), _known(row["seconds"])),
                *(_encoder_cells(row) if with_encoder else ()),
            ]
        )
    more = [replace(one, title=one.title.format(heading=wording.heading),
                    meaning=one.meaning.format(parameters=wording.parameters)) for one in ENCODER]  # fmt: skip
    return Table(caption, (*COLUMNS, *(more if with_encoder else ())), rows)


def _encoder_cells(row: Mapping[Any, Any]) -> list[Cell]:
    bias, cosine = row[f"{ENCODER_PREFIX}relative_bias"], row.get(f"{ENCODER_PREFIX}cosine", np.nan)
    low = row.get(f"{ENCODER_PREFIX}relative_bias_low", np.nan)
    return [
        Cell("0" if low <= 0 else rounded(bias), _known(bias)),
        Cell(fixed(cosine, 3), _known(cosine)),
    ]


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that hold numbers."""
    return frame[frame["reason"] == ""]


def refused(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (estimator, reason) of those that are not applicable."""
    rows = frame[frame["reason"] != ""]
    return list(zip(rows["estimator"], rows["reason"], strict=True))


def figures(value: float) -> str:
    """Return three significant figures; – for nothing, ∞."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    return f"{value:.2e}" if not 1e-3 <= abs(value) < 1e5 else f"{float(f'{value:.3g}'):,.10g}"


def rounded(value: float) -> str:
    """Return three decimals, or three significant figures if the value is 10 or more."""
    return fixed(value, 3) if not abs(value) >= 10 else figures(value)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def figure(frame: pd.DataFrame) -> Figure:
    """Plot relative bias and cosine with their intervals, and variance on a logarithmic axis, a line per estimator."""
    with svg.style("gradients"):
        return _figure(measured(frame))


def panel(section: Section) -> Panel:
    """Return the figure of a section, to be put into a page."""
    with svg.style(f"gradients-{section.title}"):
        drawn = _figure(measured(section.frame))
        words = "; ".join(f"{r['estimator']} {fixed(r['relative_bias'], 3)}" for r in _records(section.frame))
        return svg.inline(drawn, f"Relative bias on {section.title}: {words}", wide=True)


def _records(frame: pd.DataFrame) -> list[dict[str, float]]:
    return measured(frame).to_dict("records")  # type: ignore[return-value]


def _figure(frame: pd.DataFrame) -> Figure:
    drawn = Figure((8.8, 0.9 + 0.21 * max(3, len(frame))), layout="constrained")
    bias, cosine, variance = drawn.subplots(1, 3, sharey=True)
    position = np.arange(len(frame))
    _dots(bias, position, frame, "relative_bias", "relative bias")
    _dots(cosine, position, frame, "cosine", "cosine")
    bias.axvline(0, color=palette.MUTED, linewidth=0.8, zorder=0)
    _end_axis(bias, frame["relative_bias"].to_numpy(float), position)
    cosine.axvline(1, color=palette.MUTED, linewidth=0.8, zorder=0)
    noisy = frame["variance"].to_numpy() > 1e-12
    variance.plot(frame["variance"].to_numpy()[noisy], position[noisy], "o", color=palette.LIGHT[0], markersize=4.5)
    if noisy.any():
        variance.set_xscale("log")
        found = np.log10(frame["variance"].to_numpy()[noisy])
        variance.set_xlim(0.7 * 10 ** np.floor(found.min()), 1.4 * 10 ** np.ceil(found.max()))
        variance.xaxis.set_major_locator(LogLocator(numticks=5))
        variance.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        variance.xaxis.set_minor_locator(NullLocator())
    for here in position[~noisy]:
        variance.annotate("none", (0.02, here), xycoords=("axes fraction", "data"), va="center", color=palette.MUTED)
    variance.set_xlabel("variance of one draw")
    bias.set_yticks(position, [short(str(name), 60) for name in frame["estimator"]])
    bias.set_ylim(len(frame) - 0.5, -0.5)
    for axes in (bias, cosine, variance):
        axes.grid(axis="y")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
    return drawn


def _end_axis(axes: Axes, bias: np.ndarray, position: np.ndarray) -> None:
    """Let the axis begin at 0 and end at LAST_BIAS; larger values are written at its end and do not stretch it."""
    far = bias > LAST_BIAS
    last = LAST_BIAS if far.any() else axes.get_xlim()[1]
    axes.set_xlim(-0.02 * last, last)
    for value, here in zip(bias[far], position[far], strict=True):
        axes.annotate(f"{figures(value)} →", (1, here), xycoords=("axes fraction", "data"), ha="right", va="center")


def _dots(axes: Axes, position: np.ndarray, frame: pd.DataFrame, name: str, label: str) -> None:
    value = frame[name].to_numpy(float)
    span = [value - frame[f"{name}_low"].to_numpy(float), frame[f"{name}_high"].to_numpy(float) - value]
    error = np.nan_to_num(np.maximum(0.0, span))  # an interval that is not defined is not drawn
    axes.errorbar(value, position, xerr=error, fmt="o", color=palette.LIGHT[0], markersize=4.5, elinewidth=1.4)
    axes.set_xlabel(label)


@default_settings()
def write(sections: Sequence[Section], folder: Path, *, title: str, command: str, notes: Mapping[str, str]) -> Path:
    """Write gradients.html, gradients.csv, gradients.md and a figure for each section; return the page's path."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    whole = pd.concat([section.frame.assign(problem=section.title) for section in sections], ignore_index=True)
    whole = whole[["problem", *(name for name in whole.columns if name != "problem")]]
    tables = [table(section.frame, f"{section.title}: truth {section.truth}") for section in sections]
    panels = [panel(section) for section in sections]
    write_bytes_atomically(folder / "gradients.csv", export.csv(whole))
    write_atomically(folder / "gradients.md", export.markdown(tables))
    for section, shown in zip(sections, panels, strict=True):
        write_atomically(folder / "figures" / f"{section.title}.svg", shown.for_paper())
    page = (
        environment()
        .get_template("gradients.html.j2")
        .render(
            title=title,
            command=command,
            notes=notes,
            sections=list(zip(sections, tables, panels, strict=True)),
            refused={section.title: refused(section.frame) for section in sections},
            colour={},
        )
    )
    write_atomically(folder / "gradients.html", page)
    return folder / "gradients.html"
