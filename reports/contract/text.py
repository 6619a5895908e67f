r"""Text that somebody else wrote, made fit to be shown: every character visible, and no longer than a reader reads.

A store is shared, so its names, labels and errors may hold what moves a terminal's cursor, turns the direction of
writing or ends a C string. Each such character becomes its escape (`\x1b`); different texts stay different.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

NAME_LENGTH = 300
"""How many characters of a name or label are shown."""
TEXT_LENGTH = 4_000
"""How many characters of a text are shown: an error, a question, a command."""
FILE_LENGTH = 1_000_000
"""How many characters of a file are shown: a grid."""
_USERINFO = re.compile(r"(://[^:/@\s]*):\S+@")  # to the last @: a password may hold one, and a slash
_IN_QUERY = re.compile(r"\b(\w*password|passwd|pwd)(=|%3D)[^&;\s'\"]+", re.IGNORECASE)
_DEPTH = 20
_LAYOUT = "\n\t"


def visible(text: str, limit: int = TEXT_LENGTH, *, keep: str = "") -> str:
    """Return the text with escapes for characters that do not print, except those of `keep`, cut at `limit`."""
    shown = text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters, {_digest(text)})"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in shown)


def visible_lines(text: str, limit: int = TEXT_LENGTH) -> str:
    """Return a text of several lines made visible. Line breaks and tabs stay."""
    return visible(text.replace("\r\n", "\n"), limit, keep=_LAYOUT)


def visible_json(value: Any, depth: int = _DEPTH) -> Any:
    """Return a parsed JSON value with every text and key made visible.

    What lies deeper than `depth` is left out.
    """
    if isinstance(value, str):
        return visible(value)
    if depth == 0 and isinstance(value, dict | list):
        return "…"
    if isinstance(value, dict):
        return {visible(key, NAME_LENGTH): visible_json(inner, depth - 1) for key, inner in value.items()}
    return [visible_json(inner, depth - 1) for inner in value] if isinstance(value, list) else value


def without_passwords(text: str) -> str:
    """Return the text with the password of every URI in it replaced by ***, fit for a terminal or a store.

    It replaces too much rather than too little: everything between a colon and the last @ before a space.
    """
    return _IN_QUERY.sub(r"\1\2***", _USERINFO.sub(r"\1:***@", text))


def first_line(error: BaseException, limit: int = 500) -> str:
    """Return the first line of what a store raised, fit for a terminal, in the words of the database if it was one.

    SQLAlchemy and MLflow wrap the error of a database's driver, and MLflow repeats the address with its password.
    """
    originals = (getattr(each, "orig", None) for each in (error.__cause__, error))
    error = next((each for each in originals if isinstance(each, BaseException)), error)
    return visible(without_passwords((str(error).strip().splitlines() or [type(error).__name__])[0]), limit)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="backslashreplace")).hexdigest()[:8]
