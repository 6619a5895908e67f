"""From the nodes of a grid file to lists of checked choices: a list where one value belongs means a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.errors import did_you_mean
from harness.grid.problems import Problems, rule
from harness.grid.yaml_nodes import Node, Position, short_repr
from harness.schedules import KINDS, Schedule, Settings

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
        return f"{self.path} on line {self.position.line}"


Fields = dict[str, list[Placed]]
Combination = Mapping[str, Placed]


def at(node: Node, path: str) -> Placed:
    return Placed(node.plain(), node.position, path)


def choices(node: Node, path: str, *, is_list: bool = False) -> list[Placed]:
    """The values to sweep. Where the setting is a list itself (`is_list`), a list of lists sweeps."""
    items = node.value if isinstance(node.value, list) else []
    if is_list:
        if not items or not any(isinstance(item.value, list) for item in items):
            return [_as_tuple(at(node, path))]
        return [_as_tuple(at(item, f"{path}[{i}]")) for i, item in enumerate(items)]
    if isinstance(node.value, list):
        return [at(item, f"{path}[{i}]") for i, item in enumerate(items)]
    return [at(node, path)]


def mapping(node: Node, path: str, problems: Problems) -> dict[str, Node]:
    """The entries of a mapping; a problem and no entries for anything else."""
    if isinstance(node.value, dict):
        return node.value
    problems.expected(at(node, path), "a mapping", node.plain())
    return {}


def items(node: Node, path: str, what: str, problems: Problems) -> list[tuple[Node, str]]:
    """The items of a list, with their paths; a problem and none for anything else or an empty list."""
    if isinstance(node.value, list) and node.value:
        return [(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
    problems.expected(at(node, path), f"a list of at least one {what}", node.plain())
    return []


def unknown_key(node: Node, key: str, path: str, known: Iterable[str], problems: Problems) -> None:
    known = list(known)
    hint = did_you_mean(key, known) or f"Known: {', '.join(known)}."
    inside = path.rpartition(".")[0] or "the grid"
    problems.add(node.keys[key], path, f"expected a key of {inside}, got {short_repr(key)}. {hint}")


def read_fields(node: Node, path: str, model: type[Settings], problems: Problems) -> Fields:
    """Every setting of a mapping with its choices, each checked by itself against the model."""
    known = aliases(model)
    fields: Fields = {}
    for key, value in mapping(node, path, problems).items():
        if key not in known:
            unknown_key(node, key, f"{path}.{key}", known, problems)
        else:
            fields[key] = read_choices(value, f"{path}.{key}", model, key, problems)
    return fields


def read_choices(node: Node, path: str, model: type[Settings], key: str, problems: Problems) -> list[Placed]:
    """The choices of one setting, each checked against the model; an empty list is a problem."""
    found = choices(node, path, is_list="tuple" in str(aliases(model)[key].annotation))
    if not found:
        problems.expected(at(node, path), "a value or a list of at least one", [])
    for choice in found:
        try:
            model.model_validate({key: choice.value})
        except ValidationError as error:
            report([e for e in error.errors() if e["loc"][:1] == (key,)], choice, {key: choice}, problems)
    return found


def aliases(model: type[Settings]) -> dict[str, Any]:
    """The fields of a model by the names that they have in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def combinations(fields: Fields, where: Placed, problems: Problems) -> Iterator[Combination]:
    """Every combination of the choices; a problem where there are far too many."""
    count = math.prod(map(len, fields.values()))
    if count > MAX_RUNS:
        problems.add(where.position, where.path, f"expected at most {MAX_RUNS} combinations, got {count}.")
        return
    for values in product(*fields.values()):
        yield dict(zip(fields, values, strict=True))


def build(model: type[T], combination: Combination, where: Placed, problems: Problems) -> T | None:
    """The model with these values; None and the problems where it refuses them together."""
    try:
        return model.model_validate({key: choice.value for key, choice in combination.items()})
    except ValidationError as error:
        report(error.errors(), where, combination, problems)
        return None


def report(errors: Iterable[Any], where: Placed, combination: Combination, problems: Problems) -> None:
    """Put pydantic's errors in our words. A message of our own begins with the name of the field it is about."""
    for error in errors:
        key = str(error["loc"][0]) if error["loc"] else ""
        if error["type"] == "missing":
            problems.add(where.position, f"{where.path}.{key}", f"expected a value for {key}, got none.")
        elif error["type"] == "value_error":
            field, _, message = str(error["ctx"]["error"]).partition(": ")
            place = combination.get(field) or Placed(None, where.position, f"{where.path}.{field}")
            problems.add(place.position, place.path, message)
        else:
            expected, known = rule(error)
            place = combination.get(key, where)
            inner = "".join(f"[{part}]" for part in error["loc"][1:])
            got = list(error["input"]) if isinstance(error["input"], tuple) else error["input"]
            problems.expected(Placed(None, place.position, place.path + inner), expected, got, known)


def read_schedules(node: Node, problems: Problems) -> list[Placed]:
    """The schedules of a grid, in order, each with its place."""
    found: list[Placed] = []
    for item, path in items(node, "schedules", "schedule", problems):
        entries = {"kind": item} if isinstance(item.value, str) else mapping(item, path, problems)
        if isinstance(item.value, dict) and "kind" not in entries:
            problems.add(item.position, f"{path}.kind", f"expected one of {', '.join(KINDS)}, got no kind.")
        for kind in choices(entries["kind"], f"{path}.kind") if "kind" in entries else []:
            if isinstance(kind.value, str) and kind.value in KINDS:
                found += _schedules(item, path, KINDS[kind.value], kind, problems)
            else:
                problems.expected(kind, f"one of {', '.join(KINDS)}", kind.value, KINDS)
    return found


def _schedules(item: Node, path: str, model: type[Schedule], kind: Placed, problems: Problems) -> Iterator[Placed]:
    before = len(problems)
    rest = {key: value for key, value in item.value.items() if key != "kind"} if isinstance(item.value, dict) else {}
    fields = read_fields(Node(rest, item.position, item.keys), path, model, problems)
    if len(problems) > before:
        return
    where = Placed(None, item.position, path)
    for combination in combinations({"kind": [kind], **fields}, where, problems):
        schedule = build(model, combination, where, problems)
        if schedule is not None:
            yield Placed(schedule, item.position, path)


def refuse_repeats(settings: Iterable[Placed], problems: Problems) -> None:
    """A problem for each setting that is there twice, and for each label that two different settings would share."""
    by_text: dict[str, Placed] = {}
    by_label: dict[str, Placed] = {}
    for setting in settings:
        text, label = setting.value.canonical, setting.value.label
        if text in by_text:
            message = f"expected each run once, got {short_repr(label)} again (first: {by_text[text].line})."
            problems.add(setting.position, setting.path, message)
        elif label in by_label:
            message = f"expected a label of its own, got {short_repr(label)} again (first: {by_label[label].line})."
            problems.add(setting.position, setting.path, message)
        by_text.setdefault(text, setting)
        by_label.setdefault(label, setting)


def refuse_repeated_values(values: Iterable[Placed], problems: Problems) -> None:
    """A problem for each value that is there twice."""
    first: dict[str, Placed] = {}
    for value in values:
        before = first.setdefault(repr(value.value), value)
        if before is not value:
            problems.expected(value, "each value once", value.value, hint=f"First: {before.line}.")


def _as_tuple(place: Placed) -> Placed:
    value = tuple(place.value) if isinstance(place.value, list) else place.value
    return Placed(value, place.position, place.path)
