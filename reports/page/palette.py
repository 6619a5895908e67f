"""One colour, dash and marker per estimator, the same in every figure and table.

There are eight colours, each in a shade for light and one for dark backgrounds. They were found by search: any two
differ by at least 23 units of CIELAB for normal, protan, deutan and tritan vision (Machado et al. 2009, severity 1),
and all have a contrast of 3:1 to the background (tests/reports/test_palette.py). Figures are drawn in the light
shade. In the page the colours become CSS variables (``svg.inline``), so that one file serves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

LIGHT = ("#5892fe", "#ce8400", "#5b2f73", "#ff586b", "#0e38b4", "#970509", "#b181b5", "#77243c")
DARK = ("#aea8f9", "#9a8d0d", "#efceff", "#ea4e76", "#0f88f8", "#fd8e6e", "#bc6baa", "#fdb4bd")
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


Styles = Mapping[str, Style]
"""By the label of an estimator."""


def styles(estimators: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """Return the style of each estimator label, from pairs (estimator, estimator label).

    The colour belongs to the estimator, by its position among the sorted names; labels that share it (one estimator
    with different parameters, or a ninth estimator) differ by their dash.
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


def styles_of(frame: pd.DataFrame) -> Styles:
    """Return the style of every estimator label of a frame."""
    return styles(zip(frame["estimator"], frame["estimator_label"], strict=True))


def line(dash: int) -> Any:
    """Return the line style of a dash number, for matplotlib."""
    pattern = DASHES[dash % len(DASHES)]
    return (0, pattern) if pattern else "-"
