"""A matplotlib figure as an SVG inside the page: the page's colours and font, the same bytes each time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from reports.page import palette

_COLOURS = {
    palette.INK: "var(--ink)",
    palette.MUTED: "var(--muted)",
    palette.RULE: "var(--rule)",
    **{colour: f"var(--e{index})" for index, colour in enumerate(palette.LIGHT)},
}


@dataclass(frozen=True, repr=False)
class Panel:
    """A picture: SVG markup, and a description for those who cannot see it."""

    svg: str
    alt: str
    wide: bool = False
    drawing: Figure | None = field(default=None, compare=False)
    name: str = ""  # the name of its style

    def __repr__(self) -> str:
        return f"Panel({self.alt[:100]!r}, {len(self.svg)} bytes of SVG)"

    def for_paper(self) -> str:
        """Return the SVG as a file of its own: dark on white, with a font for every text."""
        text = self.svg
        for colour, variable in _COLOURS.items():
            text = text.replace(variable, colour)
        head = '<svg xmlns="http://www.w3.org/2000/svg" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" '
        return text.replace("<svg ", head, 1) + "\n"

    def pdf(self) -> bytes:
        """Return the panel as PDF, with its texts as text. Raises ValueError for a panel without its drawing."""
        if self.drawing is None:
            raise ValueError(f"figure: expected a panel with its drawing, got one without ({self.alt[:40]}).")
        content = io.BytesIO()
        with style(self.name):
            self.drawing.savefig(content, format="pdf", metadata={"CreationDate": None})
        return content.getvalue()

    def _repr_svg_(self) -> str:
        """Return what a notebook shows."""
        return self.for_paper()


@contextmanager
def style(name: str) -> Iterator[None]:
    """Use matplotlib's own defaults with our settings for one panel, whatever the caller has set.

    The caller's settings are restored afterwards. The backend stays, as no window is made. ``name`` makes the ids in
    the SVG unique. Warnings about a long name, or a letter that our fonts lack, are ignored: browsers have other fonts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mpl.rc_context(_defaults() | _SETTINGS | {"svg.hashsalt": name}):
            yield


def _defaults() -> dict[Any, Any]:
    """Return matplotlib's own settings."""
    return {key: value for key, value in dict.items(mpl.rcParamsDefault) if key not in _OF_WINDOWS}


_OF_WINDOWS = ("backend", "backend_fallback", "interactive", "toolbar")
_SETTINGS: dict[str, Any] = {
    **sns.axes_style("white"),  # seaborn's style, whatever theme is set
    **sns.plotting_context("paper"),
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.parse_math": False,  # a label such as "lr=$x$" is a label
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "text.color": palette.INK,
    "axes.labelcolor": palette.MUTED,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "axes.edgecolor": palette.MUTED,
    "axes.linewidth": 0.8,
    "grid.color": palette.RULE,
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def short(text: str, length: int) -> str:
    """Return the text, cut at the length."""
    return text if len(text) <= length else text[: length - 1] + "…"


def inline(figure: Figure, alt: str, *, wide: bool = False) -> Panel:
    """Return the figure as a Panel. Call it inside ``style``."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    figure.set_layout_engine("none")  # the layout is done: a PDF need not repeat it
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
    markup = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", markup)  # it would apply to the whole page
    used = set(re.findall(r'(?:xlink:href="|url\()#([\w.]+)', "".join(_TAG.findall(markup))))
    markup = _TAG.sub(lambda tag: _page_tag(tag.group(), used), markup)  # a text between tags stays as it is
    box = re.search(r'viewBox="([^"]+)"', markup)
    viewbox = box.group(1) if box else "0 0 400 300"
    head = f'<svg role="img" aria-label="{escape(alt, quote=True)}" viewBox="{viewbox}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    body = re.sub(r"^<svg[^>]*>", "", markup).rstrip()
    return Panel(head + body, alt, wide, figure, str(mpl.rcParams["svg.hashsalt"]))


_TAG = re.compile(r"<[^<>]*>")  # matplotlib escapes both letters within texts and attributes


def _page_tag(tag: str, used: set[str]) -> str:
    """Return a tag in the page's colours and font, and with its id only if something refers to it."""
    tag = re.sub(r' id="([\w.]+)"', lambda found: found.group(0) if found.group(1) in used else "", tag)
    tag = re.sub(r"font: (?:(bold|700) )?([\d.]+)px [^;\"]*", _font, tag)
    tag = re.sub(r"; font-family: [^;\"]*", "", tag)
    tag = re.sub(r' d="[^"]*"', _rounded, tag)
    for hex_colour, variable in _COLOURS.items():
        tag = tag.replace(hex_colour, variable)
    return tag


def _rounded(path: re.Match[str]) -> str:
    """Round coordinates to a hundredth of a point: a pixel is ten times as wide even if a page is enlarged tenfold."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}".rstrip("0").rstrip("."), path.group())


def _font(found: re.Match[str]) -> str:
    """Return size and weight of a text; its family is the page's."""
    return ("font-weight: 700; " if found.group(1) else "") + f"font-size: {found.group(2)}px"
