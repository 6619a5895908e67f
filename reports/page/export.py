"""Tables as CSV (full precision) and Markdown. LaTeX is in ``reports.page.latex``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from reports.contract.spreadsheet import no_formula
from reports.page.table import Table

_MARKS = re.compile(r"[`*~$]|(?<!\w)_|_(?!\w)")
"""What Markdown reads as emphasis, code or a formula. An underscore within a word is not."""
_ADDRESS = re.compile(r":(?=//)|(?<=www)\.|@", re.IGNORECASE)


def csv(frame: pd.DataFrame) -> bytes:
    """Return the frame as UTF-8 with a byte order mark, by which a spreadsheet recognises it.

    A text that a spreadsheet would calculate gets an apostrophe before it, as spreadsheets mean text.
    """
    texts = frame.select_dtypes(["object", "string"]).columns
    safe = frame.assign(**{name: frame[name].map(no_formula) for name in texts})
    return safe.rename(columns=no_formula).to_csv(index=False, lineterminator="\n").encode("utf-8-sig")


def markdown(tables: Sequence[Table]) -> str:
    """Return the tables as Markdown."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(_plain(text).replace("|", "\\|") for text in texts) + " |"

    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    rows = [line([cell.text for cell in row]) for row in table.rows]
    head = line([column.title for column in table.columns])
    return "\n".join([f"**{_plain(table.caption)}**", "", head, rule, *rows, ""])


def _plain(text: str) -> str:
    """Return Markdown that shows the text: no line breaks, no HTML, no links, no emphasis, no formulas."""
    text = text.replace("\\", "\\\\").replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    text = _MARKS.sub(lambda found: f"\\{found.group()}", text).replace("](", "]\\(")
    return _ADDRESS.sub(lambda found: f"&#{ord(found.group())};", text)
