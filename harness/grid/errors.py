"""The errors of a grid file: one line for each, with its position."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from harness.errors import UserError, did_you_mean
from harness.grid.yaml_nodes import Position, short_repr

MAX_SHOWN = 20
_RULES = {  # pydantic's kind of error → the rule that it states
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "greater_than": "a value > {gt}",
    "greater_than_equal": "a value >= {ge}",
    "less_than": "a value < {lt}",
    "less_than_equal": "a value <= {le}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "printable text on one line",
    "literal_error": "one of {expected}",
}


class GridError(UserError):
    """A grid that was refused: a line for each error, `file:line:column: path: expected …, got …`."""

    def __init__(self, messages: Iterable[str]) -> None:
        self.messages = tuple(messages)
        super().__init__("\n".join(self.messages))


class ErrorList:
    """The errors of one file: each once, sorted by position."""

    def __init__(self, file: str) -> None:
        self.file = _on_one_line(file)
        self._found: dict[tuple[Position, str, str], None] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, position: Position, path: str, message: str) -> None:
        """Add an error; `path` is the dotted name of the setting."""
        self._found[position, _on_one_line(path), " ".join(message.split())] = None

    def expected(self, at: Any, rule: str, got: object, known: Iterable[str] = (), hint: str = "") -> None:
        """Add that `at`, anything with position and path, breaks a rule with the value `got`."""
        hint = hint or did_you_mean(got, known)
        self.add(at.position, at.path, f"expected {rule}, got {short_repr(got)}.{' ' if hint else ''}{hint}")

    def stop_if_any(self) -> None:
        """Raise GridError if there is an error."""
        if self._found:
            raise GridError(self.lines())

    def lines(self) -> list[str]:
        """Return the errors so far, each as one line."""
        found = sorted(self._found)
        lines = [self._line(*error) for error in found[:MAX_SHOWN]]
        if more := found[MAX_SHOWN:]:
            lines.append(self._line(*more[0][:2], f"{len(more)} more from here on; the first {MAX_SHOWN} are shown."))
        return lines

    def _line(self, position: Position, path: str, message: str) -> str:
        return f"{self.file}:{position.line}:{position.column}: {path}: {message}"


def _on_one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:1000]


def rule(error: ErrorDetails) -> tuple[str, list[str]]:
    """Return the rule of an error of pydantic in our words, and the values that are known where the rule lists them."""
    limits: Mapping[str, Any] = error.get("ctx", {})
    if error["type"] not in _RULES:
        return f"something else ({error['msg']})", []
    known = re.findall(r"'([^']*)'", str(limits.get("expected", "")))
    shown = dict(limits) | ({"expected": ", ".join(known)} if known else {})
    return _RULES[error["type"]].format_map({key: _number(value) for key, value in shown.items()}), known


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
