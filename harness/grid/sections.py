"""The sections of a grid file (data, model, training, evaluation) with their sweeps and zipped groups → settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Any

from harness.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    TrainingConfig,
    check_splits,
)
from harness.datasets.descriptions import DataError
from harness.datasets.own import NO_SOURCES, Sources
from harness.errors import did_you_mean
from harness.grid import choices
from harness.grid.choices import Placed
from harness.grid.errors import ErrorList
from harness.grid.tasks import TaskChoice
from harness.grid.yaml_nodes import Node
from harness.measures import VAE_NAME
from harness.schedules import Settings

SECTIONS: Mapping[str, type[Settings]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}
PATHS = [f"{section}.{name}" for section, model in SECTIONS.items() for name in choices.fields_by_alias(model)]

Factor = list[dict[str, Placed]]  # the rows of an axis; each gives one or more settings their values, by dotted path
SectionValues = dict[str, Any]  # one model of SECTIONS by the name of its section


def read_factors(entries: Mapping[str, Node], errors: ErrorList) -> list[Factor]:
    """Return what is combined: each setting of a section with its values, and each zipped group with its rows."""
    places: dict[str, Placed] = {}
    factors: list[Factor] = []
    for section, model in SECTIONS.items():
        fields = choices.read_fields(entries[section], section, model, errors) if section in entries else {}
        for key, found in fields.items():
            places[f"{section}.{key}"] = Placed(None, entries[section].keys[key], f"{section}.{key}")
            factors.append([{f"{section}.{key}": choice} for choice in found])
    if "zip" in entries:
        for group, path in choices.read_items(entries["zip"], "zip", "group", errors):
            factors.append(_zipped(group, path, places, errors))
    return factors


def _zipped(group: Node, path: str, places: dict[str, Placed], errors: ErrorList) -> Factor:
    """Return the rows of one zipped group: the first values of all its settings, the second values, and so on."""
    columns: dict[str, list[Placed]] = {}
    for key, node in choices.read_mapping(group, path, errors).items():
        where = Placed(None, group.keys[key], f"{path}.{key}")
        section, _, name = key.partition(".")
        if key not in PATHS:
            hint = did_you_mean(key, PATHS) or "Write it as section.setting, such as training.lr."
            errors.expected(where, "the path of a setting", key, hint=hint)
        elif key in places:
            message = f"expected each setting once, got it again (first: {places[key].line})."
            errors.add(where.position, where.path, message)
        elif not isinstance(node.value, list):
            errors.expected(choices.placed(node, where.path), "a list of values", node.plain())
        else:
            columns[key] = choices.read_choices(node, where.path, SECTIONS[section], name, errors)
        places.setdefault(key, where)
    if group.value == {}:
        errors.expected(Placed(None, group.position, path), "a mapping of at least one setting", {})
    for key, column in columns.items():
        first = next(iter(columns))
        if len(column) != len(columns[first]):
            rule = f"as many values as {first} ({len(columns[first])})"
            errors.add(group.keys[key], f"{path}.{key}", f"expected {rule}, got {len(column)}.")
    return [dict(zip(columns, row, strict=False)) for row in zip(*columns.values(), strict=False)]


def expand(
    factors: list[Factor],
    tasks: Iterable[TaskChoice],
    where: Placed,
    errors: ErrorList,
    sources: Sources = NO_SOURCES,
) -> list[SectionValues]:
    """Return every combination of the settings of each task, each section built once; the others are errors.

    A setting has the sections that its task uses, and the task. Own images are read; `sources` are those of plug-ins.
    """
    settings: list[SectionValues] = []
    cache: dict[Any, Any] = {}
    for task in tasks:
        first: dict[Any, Mapping[str, Placed]] = {}
        for rows in product(*(of_task(factor, task) for factor in factors)):
            chosen = {path: place for row in rows for path, place in row.items()}
            parts = {section: _section(section, chosen, where, cache, errors, sources) for section in task.sections}
            if None in parts.values():
                continue
            setting = {"task": task.value, **parts}
            _check_together(setting, chosen, where, errors)
            text = tuple(part.canonical for part in parts.values())
            if text in first:
                _refuse_repeat(chosen, first[text], errors)
            first.setdefault(text, chosen)
            settings.append(setting)
    return settings


def of_task(factor: Factor, task: TaskChoice) -> Factor:
    """Return the rows of an axis with the settings of one task only.

    Rows of a group that differ in other settings alone are one row. Values that the grid repeats stay, to be refused.
    """
    rows: dict[Any, dict[str, Placed]] = {}
    for row in factor:
        mine = {path: place for path, place in row.items() if task.uses(path)}
        is_whole = len(mine) == len(row)
        rows.setdefault(tuple(id(place) if is_whole else repr(place.value) for place in mine.values()), mine)
    return list(rows.values())


def refuse_unused(factors: list[Factor], tasks: Collection[TaskChoice], errors: ErrorList) -> None:
    """Add an error for each setting that none of the tasks uses."""
    names = ", ".join(dict.fromkeys(task.name for task in tasks))
    given = {path: place for factor in factors if factor for path, place in factor[0].items()}
    for path, place in given.items():
        section, _, name = path.partition(".")
        if any(task.uses(path) for task in tasks):
            continue
        if section == "model":
            message = f"expected the settings of {names} under task, got one of {VAE_NAME}."
            errors.add(place.position, path, f"{message} Remove model, or the task.")
        elif section == "data":
            errors.add(place.position, path, f"expected no data, since {names} takes no images, got {name}.")
        else:
            errors.add(place.position, path, f"expected no {name}, which {names} does not use, got one.")


def _section(
    name: str,
    chosen: Mapping[str, Placed],
    where: Placed,
    cache: dict[Any, Any],
    errors: ErrorList,
    sources: Sources,
) -> Any:
    mine = {path.partition(".")[2]: place for path, place in chosen.items() if path.startswith(f"{name}.")}
    key = (name, *map(id, mine.values()))
    if key not in cache:
        here = Placed(None, min((p.position for p in mine.values()), default=where.position), name)
        cache[key] = choices.build(SECTIONS[name], mine, here, errors)
        if isinstance(cache[key], DataConfig):
            cache[key] = _with_images(cache[key], chosen, here, errors, sources)
    return cache[key]


def _with_images(
    data: DataConfig, chosen: Mapping[str, Placed], where: Placed, errors: ErrorList, sources: Sources
) -> DataConfig | None:
    """Return the settings of own images with what is derived from them; an error, and None, if there are none."""
    try:
        return data.identified(sources)
    except DataError as error:
        path, _, message = str(error).partition(": ")
        errors.add(chosen.get(path, where).position, path, message)
        return None


def _check_together(setting: SectionValues, chosen: Mapping[str, Placed], where: Placed, errors: ErrorList) -> None:
    try:
        check_splits(setting["task"], setting.get("data"), setting["evaluation"], setting.get("model"))
    except ValueError as error:
        path, _, message = str(error).partition(": ")
        errors.add(chosen.get(path, where).position, path, message)


def _refuse_repeat(chosen: Mapping[str, Placed], before: Mapping[str, Placed], errors: ErrorList) -> None:
    path, place = next((path, place) for path, place in chosen.items() if place is not before[path])
    errors.expected(place, "each run once", place.value, hint=f"The same setting: {before[path].line}.")


def varying(settings: list[SectionValues]) -> list[str]:
    """Return the dotted paths of the settings that are not the same in all runs of a task; the task first, if several.

    What differs between tasks only, such as a setting that one of them does not use, is no path of its own.
    """
    by_task: dict[str, list[SectionValues]] = {}
    for setting in settings:
        by_task.setdefault(setting["task"].label if setting["task"] else VAE_NAME, []).append(setting)
    found = ["task"] if len(by_task) > 1 else []
    for section, model in SECTIONS.items():
        groups = [values for mine in by_task.values() if (values := [s[section] for s in mine if section in s])]
        found += [
            f"{section}.{name}"
            for name in model.model_fields
            if name not in model.derived
            and any(getattr(one, name) != getattr(values[0], name) for values in groups for one in values)
        ]
    return found
