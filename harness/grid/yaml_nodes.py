"""YAML with positions: text → a tree whose every value knows its line and column, so that an error can point at it.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `1e-3` is a number, `no` and `on` are text, `010`, `0o12`
and `0xA` are ten, quoted values are always text. Tags and merge keys are refused; aliases are counted at every use, so
that a small file cannot grow into a large one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 20
MAX_DIGITS = 1000
_INTS = {10: re.compile(r"[-+]?[0-9]+\Z"), 8: re.compile(r"0o[0-7]+\Z"), 16: re.compile(r"0x[0-9a-fA-F]+\Z")}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_WORDS: dict[str, bool | None] = {"": None, "~": None}
_WORDS |= dict.fromkeys(["null", "Null", "NULL"]) | dict.fromkeys(["true", "True", "TRUE"], True)
_WORDS |= dict.fromkeys(["false", "False", "FALSE"], False)


@dataclass(frozen=True, order=True)
class Position:
    """Where something stands in the file, counted from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, eq=False)
class Node:
    """A value of the file: a scalar, a list of nodes, or a dict of nodes by their (text) keys."""

    value: Any
    position: Position
    keys: dict[str, Position]  # where each key of a mapping stands
    size: int = 1  # nodes in all, with those inside

    def plain(self) -> Any:
        """Return the value without positions. Lists stay lists."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


class SourceError(Exception):
    """A text that cannot be read as one YAML document."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position, self.message = position, message


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises SourceError for a file that cannot be read, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise SourceError(Position(), "expected a grid file, got a directory.") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise SourceError(Position(), f"expected a readable grid file, got '{reason}'.") from None
    if len(raw) > MAX_BYTES:
        raise SourceError(Position(), f"expected a file of at most {MAX_BYTES} bytes, got more.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        got = f"the byte 0x{raw[error.start]:02x}"
        raise SourceError(_position_in(before, len(before)), f"expected text in UTF-8, got {got}.") from None


def parse(text: str) -> Node:
    """Return the tree of a text that holds one YAML document. Raises SourceError for any other text."""
    try:
        tree = _Builder().build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.reader.ReaderError as error:
        got = f"the character {chr(error.character)!r}" if isinstance(error.character, int) else "something else"
        raise SourceError(_position_in(text, error.position), f"expected YAML text, got {got}.") from None
    except yaml.MarkedYAMLError as error:
        position = _position(error.problem_mark or error.context_mark)
        problem = re.sub(r"\s+", " ", str(error.problem or error.context))
        raise SourceError(position, f"expected YAML, got a syntax error: {problem}.") from None
    except (ValueError, OverflowError, RecursionError) as error:  # PyYAML converts escapes and versions unchecked
        raise SourceError(Position(), f"expected YAML, got text that cannot be read: {type(error).__name__}.") from None
    if tree is None:
        raise SourceError(Position(), "expected a mapping of sections, got an empty file.")
    return tree


@dataclass
class _OpenCollection:
    """A list or mapping whose end has not been read yet."""

    position: Position
    anchor: str | None
    is_mapping: bool
    items: list[Node]
    size: int = 1


class _Builder:
    """A tree made of YAML events without recursion; nodes and depth are counted on the way."""

    def __init__(self) -> None:
        self.stack: list[_OpenCollection] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None
        self.n_nodes = 0

    def build(self, events: Iterator[Any]) -> Node | None:
        for event in events:
            position = _position(event.start_mark)
            if isinstance(event, yaml.DocumentStartEvent) and self.root:
                raise SourceError(position, "expected one YAML document, got a second one.")
            if isinstance(event, yaml.AliasEvent):
                self._add(self._alias(str(event.anchor), position))
            elif isinstance(event, yaml.NodeEvent):
                self._start(event, position)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        only_null = self.root and self.root.value is None
        return None if only_null else self.root

    def _start(self, event: Any, position: Position) -> None:
        if event.tag is not None:
            raise SourceError(position, f"expected no YAML tags, got {short_repr(event.tag)}.")
        if isinstance(event, yaml.ScalarEvent):
            if re.search("[\ud800-\udfff]", event.value):
                raise SourceError(position, "expected text, got half of a surrogate pair.")
            self._add(Node(scalar(event.value, plain=event.style is None), position, {}), event.anchor)
            return
        if len(self.stack) >= MAX_DEPTH:
            raise SourceError(position, f"expected at most {MAX_DEPTH} levels of nesting, got more.")
        self.stack.append(_OpenCollection(position, event.anchor, isinstance(event, yaml.MappingStartEvent), []))

    def _end(self) -> None:
        done = self.stack.pop()
        value, keys = _mapping(done.items) if done.is_mapping else (done.items, {})
        self._add(Node(value, done.position, keys, done.size), done.anchor, count=1)

    def _alias(self, name: str, position: Position) -> Node:
        if name not in self.anchors:
            raise SourceError(position, f"expected an anchor defined above, got '*{name}'.")
        original = self.anchors[name]
        return Node(original.value, position, original.keys, original.size)

    def _add(self, node: Node, anchor: str | None = None, count: int | None = None) -> None:
        self.n_nodes += node.size if count is None else count
        if self.n_nodes > MAX_NODES:
            raise SourceError(node.position, f"expected at most {MAX_NODES} values, got more.")
        if anchor:
            self.anchors[anchor] = node
        if self.stack:
            self.stack[-1].items.append(node)
            self.stack[-1].size += node.size
        else:
            self.root = node


def _mapping(items: list[Node]) -> tuple[dict[str, Node], dict[str, Position]]:
    values: dict[str, Node] = {}
    keys: dict[str, Position] = {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key.value, str):
            raise SourceError(key.position, f"expected a key that is text, got {short_repr(key.plain())}.")
        if key.value in values:
            first = keys[key.value].line
            raise SourceError(
                key.position, f"expected each key once, got {short_repr(key.value)} again (line {first})."
            )
        values[key.value], keys[key.value] = value, key.position
    return values, keys


def scalar(text: str, *, plain: bool) -> Any:
    """Return the value of a scalar by the core schema of YAML 1.2."""
    if not plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    for base, pattern in _INTS.items():
        if pattern.match(text) and len(text) < MAX_DIGITS:
            return int(text, base)
    if _FLOAT.match(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) + 0.0  # so that -0.0 is 0.0
    return text


def short_repr(value: Any) -> str:
    """Return a value as an error shows it: on one line, and not long."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else Position()


def _position_in(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - before.rfind("\n"))
