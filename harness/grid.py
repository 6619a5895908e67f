"""A grid file → the runs of a sweep, all of them validated and built before the first one starts.

docs/grid.md describes the file. The reading of single settings is in `harness.axes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import axes
from harness.axes import MAX_RUNS, Placed
from harness.config import (
    DEVICE,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    check_validation_split,
)
from harness.grid_estimators import Candidate, build_all, check_shapes, read_estimators
from harness.problems import GridError, Problems, did_you_mean
from harness.schedules import Constant, NoSchedule, Settings
from harness.source import Node, SourceError, parse, read_text

if TYPE_CHECKING:
    from harness.plugins import Registry

__all__ = ["Grid", "GridError", "load_grid"]

SECTIONS: Mapping[str, type[Settings]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}
KEYS = ("name", "question", "description", *SECTIONS, "estimators", "schedules", "devices", "seeds", "zip")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
EXAMPLES = {"estimators": "[straight_through]", "seeds": "[0, 1, 2]"}
PATHS = [f"{section}.{name}" for section, model in SECTIONS.items() for name in axes.aliases(model)]

P = TypeVar("P", bound=Placed)
Factor = list[dict[str, Placed]]  # the rows of an axis; each gives one or more settings their values, by dotted path
Setting = dict[str, Any]  # one model of SECTIONS for each section


@dataclass(frozen=True)
class Grid:
    """The runs of a grid file, with seeds as the outermost loop, and what a person should know about them."""

    name: str
    runs: tuple[RunConfig, ...]
    text: str
    question: str = ""
    description: str = ""
    notes: tuple[str, ...] = ()


def load_grid(path: Path | str, registry: Registry) -> Grid:
    """Read, check and expand a grid file. GridError, with a line for every problem found, where it is refused."""
    path = Path(path)
    problems = Problems(str(path))
    try:
        text = read_text(path)
        tree = parse(text)
    except SourceError as error:
        problems.add(error.position, "file", error.message)
        problems.stop_if_any()
        raise AssertionError from error  # not reached
    return _read(tree, path, text, registry, problems)


def _read(tree: Node, path: Path, text: str, registry: Registry, problems: Problems) -> Grid:
    entries = axes.mapping(tree, "grid", problems)
    problems.stop_if_any()
    for key in entries.keys() - set(KEYS):
        axes.unknown_key(tree, key, key, KEYS, problems)
    words = _words(entries, path, problems)
    factors = _factors(entries, problems)
    candidates = _required(tree, "estimators", lambda node: read_estimators(node, registry, problems), problems)
    schedules = [Placed(Constant(), tree.position, "schedules")]
    if "schedules" in entries:
        schedules = axes.read_schedules(entries["schedules"], problems)
    devices = (
        _devices(entries["devices"], problems) if "devices" in entries else [Placed("cpu", tree.position, "devices")]
    )
    seeds = _required(tree, "seeds", lambda node: _seeds(node, problems), problems)
    for placed in (candidates, schedules):
        axes.refuse_repeats(placed, problems)
    for values in (devices, seeds):
        axes.refuse_repeated_values(values, problems)
    built = build_all(candidates, schedules, registry, problems)
    problems.stop_if_any()

    pairs = [(c.value, s) for c in candidates for s in _schedules_of(c, schedules, registry)]
    count = math.prod([*map(len, factors), len(pairs), len(devices), len(seeds)])
    if count > MAX_RUNS:
        problems.add(tree.position, "grid", f"expected at most {MAX_RUNS} runs, got {count}.")
        problems.stop_if_any()
    settings = _expand(factors, Placed(None, tree.position, "grid"), problems)
    shapes = {(s["model"].n_latents, s["model"].n_categories): None for s in settings}
    check_shapes(built, shapes, problems)
    problems.stop_if_any()

    varies = (*_varying(settings), *(["device"] if len(devices) > 1 else []))
    runs = tuple(
        RunConfig(
            **setting, estimator=estimator, schedule=schedule, device=device.value, seed=seed.value, varies=varies
        )
        for seed, device, setting, (estimator, schedule) in product(seeds, devices, settings, pairs)
    )
    return Grid(runs=runs, text=text, notes=_notes(candidates, schedules, registry), **words)


def _required(tree: Node, key: str, read: Callable[[Node], list[P]], problems: Problems) -> list[P]:
    if isinstance(tree.value, dict) and key in tree.value:
        return read(tree.value[key])
    problems.add(
        tree.position, key, f"expected a list of at least one {key[:-1]}, got none. Add {key}: {EXAMPLES[key]}."
    )
    return []


def _words(entries: Mapping[str, Node], path: Path, problems: Problems) -> dict[str, str]:
    """The texts about the grid. Without a name it is called like its file."""
    words = {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:64] or "grid"}
    for key in ("name", "question", "description"):
        if key in entries:
            words[key] = entries[key].value
            if not isinstance(words[key], str):
                problems.expected(axes.at(entries[key], key), "text", entries[key].plain())
    if isinstance(words["name"], str) and not NAME.fullmatch(words["name"]):
        rule = "1 to 64 letters, digits, '-', '_' and '.', of which the first is a letter or digit"
        problems.expected(axes.at(entries["name"], "name"), rule, words["name"])
    return words


def _devices(node: Node, problems: Problems) -> list[Placed]:
    found = [axes.at(item, path) for item, path in axes.items(node, "devices", "device", problems)]
    for device in found:
        if not isinstance(device.value, str) or not re.fullmatch(DEVICE, device.value):
            problems.expected(device, "cpu, cuda, cuda:N or mps", device.value, ["cpu", "cuda", "cuda:0", "mps"])
    return found


def _seeds(node: Node, problems: Problems) -> list[Placed]:
    """The seeds: a list of them, or how many and from which one on."""
    if not isinstance(node.value, dict):
        found = [axes.at(item, path) for item, path in axes.items(node, "seeds", "seed", problems)]
        for seed in found:
            _check_whole(seed, 0, 2**32 - 1, problems)
        return found
    numbers = {"first": Placed(0, node.position, "seeds.first")}
    for key, value in node.value.items():
        if key not in ("first", "count"):
            axes.unknown_key(node, key, f"seeds.{key}", ["first", "count"], problems)
        numbers[key] = axes.at(value, f"seeds.{key}")
    if "count" not in numbers:
        problems.add(node.position, "seeds.count", "expected the number of seeds, got none.")
        return []
    fine = _check_whole(numbers["count"], 1, MAX_RUNS, problems)
    if not _check_whole(numbers["first"], 0, 2**32 - 1 - MAX_RUNS, problems) or not fine:
        return []
    first, count = numbers["first"].value, numbers["count"].value
    return [Placed(seed, node.position, "seeds") for seed in range(first, first + count)]


def _check_whole(place: Placed, low: int, high: int, problems: Problems) -> bool:
    fine = isinstance(place.value, int) and not isinstance(place.value, bool) and low <= place.value <= high
    if not fine:
        problems.expected(place, f"a whole number from {low} to {high}", place.value)
    return fine


def _factors(entries: Mapping[str, Node], problems: Problems) -> list[Factor]:
    """What is crossed: each setting of a section with its values, and each zipped group with its rows."""
    places: dict[str, Placed] = {}
    factors: list[Factor] = []
    for section, model in SECTIONS.items():
        for key, found in (
            axes.read_fields(entries[section], section, model, problems).items() if section in entries else ()
        ):
            places[f"{section}.{key}"] = Placed(None, entries[section].keys[key], f"{section}.{key}")
            factors.append([{f"{section}.{key}": choice} for choice in found])
    if "zip" in entries:
        for group, path in axes.items(entries["zip"], "zip", "group", problems):
            factors.append(_zipped(group, path, places, problems))
    return factors


def _zipped(group: Node, path: str, places: dict[str, Placed], problems: Problems) -> Factor:
    """The rows of one zipped group: the first values of all its settings, the second values, and so on."""
    columns: dict[str, list[Placed]] = {}
    for key, node in axes.mapping(group, path, problems).items():
        where = Placed(None, group.keys[key], f"{path}.{key}")
        section, _, name = key.partition(".")
        if key not in PATHS:
            hint = did_you_mean(key, PATHS) or "Write it as section.setting, such as training.lr."
            problems.expected(where, "the path of a setting", key, hint=hint)
        elif key in places:
            problems.add(
                where.position, where.path, f"expected each setting once, got it again (first: {places[key].line})."
            )
        elif not isinstance(node.value, list):
            problems.expected(axes.at(node, where.path), "a list of values", node.plain())
        else:
            columns[key] = axes.read_choices(node, where.path, SECTIONS[section], name, problems)
        places.setdefault(key, where)
    if group.value == {}:
        problems.expected(Placed(None, group.position, path), "a mapping of at least one setting", {})
    for key, column in columns.items():
        first = next(iter(columns))
        if len(column) != len(columns[first]):
            rule = f"as many values as {first} ({len(columns[first])})"
            problems.add(group.keys[key], f"{path}.{key}", f"expected {rule}, got {len(column)}.")
    return [dict(zip(columns, row, strict=False)) for row in zip(*columns.values(), strict=False)]


def _expand(factors: list[Factor], where: Placed, problems: Problems) -> list[Setting]:
    """Every combination of the sections' settings, each section built once; problems for those that cannot be."""
    settings: list[Setting] = []
    cache: dict[Any, Any] = {}
    first: dict[Any, Mapping[str, Placed]] = {}
    for rows in product(*factors):
        chosen = {path: place for row in rows for path, place in row.items()}
        setting = {section: _section(section, chosen, where, cache, problems) for section in SECTIONS}
        if None in setting.values():
            continue
        _check_together(setting, chosen, where, problems)
        text = tuple(part.canonical for part in setting.values())
        if text in first:
            _refuse_repeat(chosen, first[text], problems)
        first.setdefault(text, chosen)
        settings.append(setting)
    return settings


def _section(name: str, chosen: Mapping[str, Placed], where: Placed, cache: dict[Any, Any], problems: Problems) -> Any:
    mine = {path.partition(".")[2]: place for path, place in chosen.items() if path.startswith(f"{name}.")}
    key = (name, *map(id, mine.values()))
    if key not in cache:
        here = Placed(None, min((p.position for p in mine.values()), default=where.position), name)
        cache[key] = axes.build(SECTIONS[name], mine, here, problems)
    return cache[key]


def _check_together(setting: Setting, chosen: Mapping[str, Placed], where: Placed, problems: Problems) -> None:
    try:
        check_validation_split(setting["data"], setting["evaluation"])
    except ValueError as error:
        path, _, message = str(error).partition(": ")
        problems.add(chosen.get(path, where).position, path, message)


def _refuse_repeat(chosen: Mapping[str, Placed], before: Mapping[str, Placed], problems: Problems) -> None:
    path, place = next((path, place) for path, place in chosen.items() if place is not before[path])
    problems.expected(place, "each run once", place.value, hint=f"The same setting: {before[path].line}.")


def _schedules_of(candidate: Candidate, schedules: list[Placed], registry: Registry) -> list[Any]:
    uses_tau = registry[candidate.value.name].uses_tau
    return [schedule.value for schedule in schedules] if uses_tau else [NoSchedule()]


def _varying(settings: list[Setting]) -> list[str]:
    """The dotted paths of the settings that are not the same in all runs."""
    paths = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]
    return [
        f"{section}.{name}"
        for section, name in paths
        if any(getattr(s[section], name) != getattr(settings[0][section], name) for s in settings)
    ]


def _notes(candidates: list[Candidate], schedules: list[Placed], registry: Registry) -> tuple[str, ...]:
    names = dict.fromkeys(c.value.name for c in candidates if not registry[c.value.name].uses_tau)
    if len(schedules) == 1:
        return ()
    return tuple(f"{name} ignores tau: 1 schedule instead of {len(schedules)}" for name in names)
