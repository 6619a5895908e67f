"""Tables as CSV (full precision) and Markdown. LaTeX is in ``reports.page.latex``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from reports.page.table import Table

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet reads as the start of a formula
_MARKS = re.compile(r"[`*~$]|(?<!\w)_|_(?!\w)")
"""What Markdown reads as emphasis, code or a formula. An underscore within a word is not."""
_ADDRESS = re.compile(r":(?=//)|(?<=www)\.|@", re.IGNORECASE)


def csv(frame: pd.DataFrame) -> bytes:
    """Return the frame as UTF-8 with a byte order mark, by which a spreadsheet recognises it.

    A text that a spreadsheet would calculate gets an apostrophe before it, as spreadsheets mean text.
    """
    texts = frame.select_dtypes(["object", "string"]).columns
    safe = frame.assign(**{name: frame[name].map(_no_formula) for name in texts})
    return safe.rename(columns=_no_formula).to_csv(index=False, lineterminator="\n").encode("utf-8-sig")


def _no_formula(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would calculate.

    A full-width sign counts too, and so does one after white space or apostrophes of the text itself.
    """
    if not isinstance(value, str):
        return value
    first = unicodedata.normalize("NFKC", value.lstrip("'").lstrip()[:1])
    return f"'{value}" if first.startswith(_FORMULA) or value[:1] in ("\t", "\r", "\n") else value


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
