"""Nodes of a grid file → lists of checked choices: a list where one value belongs means a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.errors import did_you_mean
from harness.grid.errors import ErrorList, rule
from harness.grid.yaml_nodes import Node, Position, short_repr
from harness.schedules import Settings

MAX_RUNS = 100_000
T = TypeVar("T", bound=Settings)


@dataclass(frozen=True, eq=False)
class Placed:
    """A value, the dotted path of its setting, and where it stands in the file."""

    value: Any
    position: Position
    path: str

    @property
    def line(self) -> str:
        """The setting and its line, as a message names them."""
        return f"{self.path} on line {self.position.line}"


Fields = dict[str, list[Placed]]
Combination = Mapping[str, Placed]


def placed(node: Node, path: str) -> Placed:
    """Return the plain value of a node with its place."""
    return Placed(node.plain(), node.position, path)


def swept_values(node: Node, path: str, *, is_list: bool = False) -> list[Placed]:
    """Return the values to sweep. Where the setting is a list itself (`is_list`), a list of lists sweeps."""
    is_swept = isinstance(node.value, list)
    if is_list:
        is_swept = is_swept and any(isinstance(item.value, list) for item in node.value)
    found = [placed(item, f"{path}[{i}]") for i, item in enumerate(node.value)] if is_swept else [placed(node, path)]
    return [_as_tuple(one) for one in found] if is_list else found


def read_mapping(node: Node, path: str, errors: ErrorList) -> dict[str, Node]:
    """Return the entries of a mapping. Anything else is an error, and has none."""
    if isinstance(node.value, dict):
        return node.value
    errors.expected(placed(node, path), "a mapping", node.plain())
    return {}


def read_items(node: Node, path: str, what: str, errors: ErrorList) -> list[tuple[Node, str]]:
    """Return the items of a list, with their paths. An empty list or anything else is an error, and has none."""
    if isinstance(node.value, list) and node.value:
        return [(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
    errors.expected(placed(node, path), f"a list of at least one {what}", node.plain())
    return []


def refuse_key(node: Node, key: str, path: str, known: Iterable[str], errors: ErrorList) -> None:
    """Add the error of a key that is unknown."""
    known = list(known)
    hint = did_you_mean(key, known) or f"Known: {', '.join(known)}."
    inside = path.rpartition(".")[0] or "the grid"
    errors.add(node.keys[key], path, f"expected a key of {inside}, got {short_repr(key)}. {hint}")


def read_fields(node: Node, path: str, model: type[Settings], errors: ErrorList) -> Fields:
    """Return every setting of a mapping with its choices, each checked by itself against the model."""
    known = fields_by_alias(model)
    fields: Fields = {}
    for key, value in read_mapping(node, path, errors).items():
        if key not in known:
            refuse_key(node, key, f"{path}.{key}", known, errors)
        else:
            fields[key] = read_choices(value, f"{path}.{key}", model, key, errors)
    return fields


def read_choices(node: Node, path: str, model: type[Settings], key: str, errors: ErrorList) -> list[Placed]:
    """Return the choices of one setting, each checked against the model. An empty list is an error."""
    found = swept_values(node, path, is_list="tuple" in str(fields_by_alias(model)[key].annotation))
    if not found:
        errors.expected(placed(node, path), "a value or a list of at least one", [])
    for choice in found:
        try:
            model.model_validate({key: choice.value})
        except ValidationError as error:
            add_validation_errors([e for e in error.errors() if e["loc"][:1] == (key,)], choice, {key: choice}, errors)
    return found


def fields_by_alias(model: type[Settings]) -> dict[str, Any]:
    """Return the fields of a model by the names that they have in a file, without those that the harness fills in."""
    return {f.alias or name: f for name, f in model.model_fields.items() if name not in model.derived}


def combinations(fields: Fields, where: Placed, errors: ErrorList) -> Iterator[Combination]:
    """Yield every combination of the choices. More than MAX_RUNS are an error, and none is yielded."""
    count = math.prod(map(len, fields.values()))
    if count > MAX_RUNS:
        errors.add(where.position, where.path, f"expected at most {MAX_RUNS} combinations, got {count}.")
        return
    for values in product(*fields.values()):
        yield dict(zip(fields, values, strict=True))


def build(model: type[T], combination: Combination, where: Placed, errors: ErrorList) -> T | None:
    """Return the model with these values. Values that it refuses together are errors, and None is returned."""
    try:
        return model.model_validate({key: choice.value for key, choice in combination.items()})
    except ValidationError as error:
        add_validation_errors(error.errors(), where, combination, errors)
        return None


def add_validation_errors(found: Iterable[Any], where: Placed, combination: Combination, errors: ErrorList) -> None:
    """Add pydantic's errors in our words. A message of our own begins with the name of the field it is about."""
    for error in found:
        key = str(error["loc"][0]) if error["loc"] else ""
        if error["type"] == "missing":
            errors.add(where.position, f"{where.path}.{key}", f"expected a value for {key}, got none.")
        elif error["type"] == "value_error":
            field, _, message = str(error["ctx"]["error"]).partition(": ")
            place = combination.get(field) or Placed(None, where.position, f"{where.path}.{field}")
            errors.add(place.position, place.path, message)
        else:
            expected, known = rule(error)
            place = combination.get(key, where)
            inner = "".join(f"[{part}]" for part in error["loc"][1:])
            got = list(error["input"]) if isinstance(error["input"], tuple) else error["input"]
            errors.expected(Placed(None, place.position, place.path + inner), expected, got, known)


def refuse_repeats(
    settings: Iterable[Placed], errors: ErrorList, apart: Callable[[Placed], object] = lambda setting: None
) -> None:
    """Add an error for each setting that is repeated, and for each label that two settings share.

    Settings between which `apart` differs may be the same.
    """
    by_text: dict[Any, Placed] = {}
    by_label: dict[str, Placed] = {}
    for setting in settings:
        text, label = (setting.value.canonical, apart(setting)), setting.value.label
        same_label = by_label.setdefault(label, setting)
        if text in by_text:
            message = f"expected each run once, got {short_repr(label)} again (first: {by_text[text].line})."
            errors.add(setting.position, setting.path, message)
        elif same_label.value.canonical != setting.value.canonical:
            message = f"expected a label of its own, got {short_repr(label)} again (first: {same_label.line})."
            errors.add(setting.position, setting.path, message)
        by_text.setdefault(text, setting)


def refuse_shared_labels(settings: Iterable[Placed], errors: ErrorList) -> None:
    """Add an error for each label that two different settings share. Equal settings may be there twice."""
    first: dict[str, Placed] = {}
    for setting in settings:
        before = first.setdefault(setting.value.label, setting)
        if before.value.canonical != setting.value.canonical:
            message = f"expected a label of its own, got {short_repr(before.value.label)} again (first: {before.line})."
            errors.add(setting.position, setting.path, message)


def refuse_repeated_values(values: Iterable[Placed], errors: ErrorList) -> None:
    """Add an error for each value that is repeated."""
    first: dict[str, Placed] = {}
    for value in values:
        before = first.setdefault(repr(value.value), value)
        if before is not value:
            errors.expected(value, "each value once", value.value, hint=f"First: {before.line}.")


def _as_tuple(place: Placed) -> Placed:
    value = tuple(place.value) if isinstance(place.value, list) else place.value
    return Placed(value, place.position, place.path)
