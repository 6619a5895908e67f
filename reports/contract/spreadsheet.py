"""Texts in a CSV that a spreadsheet would calculate."""

from __future__ import annotations

import unicodedata

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet reads as the start of a formula


def no_formula(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would calculate.

    A full-width sign counts too, and so does one after white space or apostrophes of the text itself.
    """
    if not isinstance(value, str):
        return value
    first = unicodedata.normalize("NFKC", value.lstrip("'").lstrip()[:1])
    return f"'{value}" if first.startswith(_FORMULA) or value[:1] in ("\t", "\r", "\n") else value


def as_written(text: str) -> str:
    """Return a text without the apostrophe that `no_formula` puts before it."""
    return text[1:] if text[:1] == "'" and no_formula(text[1:]) == text else text
