"""One colour, dash and marker per estimator, the same in every figure and table.

Eight hues that stay apart for colour-blind readers, each in a shade for light and one for dark backgrounds. Figures are
drawn in the light shade; in the page they become CSS variables (``svg.inline``), so that one file serves both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LIGHT = ("#2a78d6", "#c2570c", "#0f8a5f", "#b8358a", "#4a3aa7", "#8a6d00", "#d13438", "#007a8a")
DARK = ("#5aa2f2", "#f08a4b", "#3cbf91", "#ea7ac2", "#a397f5", "#d9b132", "#f27b7b", "#45bccb")
INK = "#1a1b1e"  # in the page: the text colour
MUTED = "#6b6e76"  # in the page: secondary text and axes
RULE = "#d9dade"  # in the page: grid lines
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.4, 1.4), (6, 1.6, 1.4, 1.6))


@dataclass(frozen=True)
class Style:
    """How one estimator setting is drawn."""

    colour: int  # index into LIGHT and DARK
    dash: int
    marker: str

    @property
    def hex(self) -> str:
        return LIGHT[self.colour]

    @property
    def dashes(self) -> tuple[float, ...]:
        return DASHES[self.dash]


def styles(estimators: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """Style of each estimator label, from pairs (estimator, estimator label).

    The colour belongs to the estimator, by its place among the sorted names; labels that share it (one estimator with
    different parameters, or a ninth estimator) differ by their dash.
    """
    pairs = sorted(set(estimators))
    names = sorted({name for name, _ in pairs})
    used: dict[int, int] = {}
    made: dict[str, Style] = {}
    for name, label in pairs:
        colour = names.index(name) % len(LIGHT)
        turn = used.get(colour, 0)
        used[colour] = turn + 1
        made[label] = Style(colour, turn % len(DASHES), _MARKERS[names.index(name) % len(_MARKERS)])
    return made


def line(dash: int) -> Any:
    """matplotlib's line style of a dash number."""
    pattern = DASHES[dash % len(DASHES)]
    return (0, pattern) if pattern else "-"
