"""A table, of which HTML, Markdown and LaTeX are made: cells with a text, a value to sort by and a tone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd

from reports.process_settings import default_settings


@dataclass(frozen=True)
class Cell:
    """``text`` is shown; ``sort`` orders the column; ``estimator`` gives it that estimator's colour."""

    text: str
    sort: float | str | None = None
    estimator: str = ""
    tone: str = ""
    title: str = ""
    link: str = ""  # where a click leads: a run in MLflow
    shade: float | None = None  # 0 to 1: how strongly a cell of a heat map is coloured


@dataclass(frozen=True)
class Column:
    """A heading; ``numeric`` columns are aligned on the right; ``meaning`` is the definition in a line."""

    title: str
    numeric: bool = True
    meaning: str = ""
    term: str = ""  # its anchor in reports.page.definitions


@dataclass(frozen=True, repr=False)
class Table:
    """A table that HTML, Markdown and LaTeX are written from."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        """Return the texts as a frame."""
        return pd.DataFrame(
            [[cell.text for cell in row] for row in self.rows], columns=[column.title for column in self.columns]
        )

    def __repr__(self) -> str:
        return f"Table({self.caption[:100]!r}, {len(self.rows)} rows × {len(self.columns)} columns)"

    def __str__(self) -> str:
        """Return what a terminal shows."""
        with default_settings():
            return f"{self.caption}\n{self.frame().to_string(index=False)}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        with default_settings():
            return str(
                self.frame().style.hide(axis="index").format(escape="html").set_caption(escape(self.caption)).to_html()
            )
