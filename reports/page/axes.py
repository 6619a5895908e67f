"""Axes of the report's figures: titles, labels, grid, legend and names beside marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.page.svg import short, style

SIZE = (4.4, 3.1)


@contextmanager
def one_panel(name: str, size: tuple[float, float] = SIZE) -> Iterator[tuple[Figure, Axes]]:
    """Use the report's style for a new figure with one pair of axes. ``name`` makes the ids in the SVG unique."""
    with style(name):
        figure = Figure(size, layout="constrained")
        yield figure, figure.add_subplot()


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title, labels, grid and ticks."""
    axes.set_title(short(title, 100), pad=9)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    axes.tick_params(length=3, width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))


def legend(axes: Axes, lines: Sequence[Line2D], names: Sequence[str], length: int, **how: Any) -> None:
    """Add a legend of exactly these lines. matplotlib would leave out names that begin with an underscore."""
    made = axes.legend(lines, ["" for _ in names], frameon=False, loc="best", handlelength=3, **how)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(short(name, length))


def annotate(axes: Axes, text: str, x: float, y: float) -> None:
    """Write a small name beside a mark, on the side with room for it. Call it once the axes are drawn."""
    low, high = axes.transData.transform([(axes.get_xlim()[0], y), (axes.get_xlim()[1], y)])[:, 0]
    left = axes.transData.transform((x, y))[0] < (low + high) / 2
    written = axes.annotate(text, (x, y), xytext=(7 if left else -7, 5), textcoords="offset points", fontsize=8,
                            ha="left" if left else "right")  # fmt: skip
    written.set_in_layout(False)  # a long name must not squeeze the axes
