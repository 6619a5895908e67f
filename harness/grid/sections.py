"""The sections of a grid file (data, model, training, evaluation) with their sweeps and zipped groups → settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
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
    for section in SECTIONS:
        if section in entries:
            found = read_section(section, entries[section], section, errors)
            for path in paths_of(found):
                places[path] = Placed(None, entries[section].keys[path.removeprefix(f"{section}.")], path)
            factors += found
    if "zip" in entries:
        for group, path in choices.read_items(entries["zip"], "zip", "group", errors):
            factors.append(_zipped(group, path, places, errors))
    return factors


def read_section(section: str, node: Node, where: str, errors: ErrorList) -> list[Factor]:
    """Return each setting of a section with its values; `where` is the path of the mapping in the file."""
    fields = choices.read_fields(node, where, SECTIONS[section], errors)
    return [[{f"{section}.{key}": choice} for choice in found] for key, found in fields.items() if found]


def paths_of(factors: Iterable[Factor]) -> dict[str, Placed]:
    """Return the settings that factors give values to, by dotted path, with their first values."""
    return {path: place for factor in factors if factor for path, place in factor[0].items()}


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
    cache: dict[Any, Any] | None = None,
    owner: Placed | None = None,
) -> list[SectionValues]:
    """Return every combination of the settings of each task, each section built once; the others are errors.

    A setting has the sections that its task uses, and the task. Own images are read; `sources` are those of plug-ins.
    `cache` has the sections that other calls have built. `owner` is the estimator that has some of the settings for
    itself: errors in their sections are its own.
    """
    settings: list[SectionValues] = []
    cache = {} if cache is None else cache
    for task in tasks:
        first: dict[Any, Mapping[str, Placed]] = {}
        for rows in product(*(of_task(factor, task) for factor in factors)):
            chosen = {path: place for row in rows for path, place in row.items()}
            parts = {
                section: _section(section, chosen, where, cache, errors, sources, owner) for section in task.sections
            }
            if None in parts.values():
                continue
            setting = {"task": task.value, **parts}
            _check_together(setting, chosen, where, errors, owner)
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
    return keep(factor, task.uses)


def keep(factor: Factor, is_kept: Callable[[str], bool]) -> Factor:
    """Return the rows of an axis with some settings only; rows that thereby became equal are one row."""
    rows: dict[Any, dict[str, Placed]] = {}
    for row in factor:
        mine = {path: place for path, place in row.items() if is_kept(path)}
        is_whole = len(mine) == len(row)
        rows.setdefault(tuple(id(place) if is_whole else repr(place.value) for place in mine.values()), mine)
    return list(rows.values())


def refuse_unused(
    factors: list[Factor], tasks: Collection[TaskChoice], errors: ErrorList, owner: Placed | None = None
) -> None:
    """Add an error for each setting that none of the tasks uses. `owner` is the estimator that has them for itself."""
    names = ", ".join(dict.fromkeys(task.name for task in tasks))
    for path, place in paths_of(factors).items():
        section, _, name = path.partition(".")
        if any(task.uses(path) for task in tasks):
            continue
        where = f"{owner.path}.{path}" if owner else path
        if section == "model":
            message = f"expected the settings of {names} under task, got one of {VAE_NAME}."
            errors.add(place.position, where, f"{message} Remove model, or the task.")
        elif section == "data":
            errors.add(place.position, where, f"expected no data, since {names} takes no images, got {name}.")
        else:
            errors.add(place.position, where, f"expected no {name}, which {names} does not use, got one.")


def _section(
    name: str,
    chosen: Mapping[str, Placed],
    where: Placed,
    cache: dict[Any, Any],
    errors: ErrorList,
    sources: Sources,
    owner: Placed | None,
) -> Any:
    mine = {path.partition(".")[2]: place for path, place in chosen.items() if path.startswith(f"{name}.")}
    key = (name, *map(id, mine.values()))
    if key not in cache:
        here = Placed(None, min((p.position for p in mine.values()), default=where.position), name)
        if owner and _has_own(name, chosen, owner):
            here = Placed(None, owner.position, f"{owner.path}.{name}")
            mine = {key: _at(f"{name}.{key}", chosen, where, owner) for key in mine}
        cache[key] = choices.build(SECTIONS[name], mine, here, errors)
        if isinstance(cache[key], DataConfig):
            cache[key] = _with_images(cache[key], chosen, here, errors, sources)
    return cache[key]


def _has_own(section: str, chosen: Mapping[str, Placed], owner: Placed) -> bool:
    """Return whether a section has a setting that is the estimator's own."""
    mine = (place for path, place in chosen.items() if path.startswith(f"{section}."))
    return any(place.path.startswith(f"{owner.path}.") for place in mine)


def _at(path: str, chosen: Mapping[str, Placed], where: Placed, owner: Placed | None) -> Placed:
    """Return the place of a setting. That of an estimator with settings of its own is in these, else in the grid."""
    place = chosen.get(path, Placed(None, where.position, path))
    if owner is None or not _has_own(path.partition(".")[0], chosen, owner):
        return place
    is_own = place.path.startswith(f"{owner.path}.")
    return Placed(place.value, place.position if is_own else owner.position, f"{owner.path}.{path}")


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


def _check_together(
    setting: SectionValues, chosen: Mapping[str, Placed], where: Placed, errors: ErrorList, owner: Placed | None
) -> None:
    try:
        check_splits(setting["task"], setting.get("data"), setting["evaluation"], setting.get("model"))
    except ValueError as error:
        path, _, message = str(error).partition(": ")
        place = _at(path, chosen, where, owner)
        is_own = owner is not None and place.path.startswith(f"{owner.path}.")
        errors.add(place.position, place.path if is_own else path, message)


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
