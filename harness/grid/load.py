"""A grid file → the runs of a sweep, all of them validated and built before the first one starts.

docs/grid.md describes the file. The reading of single settings is in `harness.grid.choices`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import DEVICE, DiagnosticsConfig, RunConfig
from harness.grid import choices
from harness.grid import effects as effects
from harness.grid.choices import MAX_RUNS, Placed
from harness.grid.diagnostics import check_basket, read_diagnostics
from harness.grid.estimators import (
    Built,
    Candidate,
    build_all,
    check_compiles,
    check_shapes,
    read_estimators,
    schedules_for,
)
from harness.grid.problems import GridError, Problems
from harness.grid.sections import SECTIONS, Setting, expand, read_factors, varying
from harness.grid.yaml_nodes import Node, SourceError, parse, read_text
from harness.schedules import Constant, NoSchedule

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

__all__ = ["Grid", "GridError", "load_grid"]

KEYS = (
    *("name", "question", "description"),
    *SECTIONS,
    *("diagnostics", "estimators", "schedules", "devices", "seeds", "zip"),
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '-', '_' and '.', of which the first is a letter or digit"
RESERVED = ("Default", "artifacts", "compare", "gradients", "mlflow.db", "mlruns")
"""What MLflow has already, and what a results folder holds besides sweeps: no name of a grid, in whatever capitals."""
EXAMPLES = {"estimators": "[straight_through]", "seeds": "[0, 1, 2]"}


MANY = 10
"""Decoder evaluations per image and step from which on a sweep says how many there are."""


@dataclass(frozen=True)
class Grid:
    """The runs of a grid file, with seeds as the outermost loop, and what a person should know about them."""

    name: str
    runs: tuple[RunConfig, ...] = field(repr=False)
    text: str = field(repr=False)
    question: str = ""
    description: str = ""
    notes: tuple[str, ...] = ()


def load_grid(path: Path | str, registry: Registry, text: str | None = None) -> Grid:
    """Read, check and expand a grid file. GridError, with a line for every problem found, where it is refused.

    `text` is that of a grid that came through a pipe and was read already; it must say its name.
    """
    path = Path(path)
    problems = Problems(str(path))
    try:
        source = read_text(path) if text is None else text
        tree = parse(source)
    except SourceError as error:
        raise _unreadable(path, error) from error
    from harness.process_state import preserved

    with preserved():  # plug-ins are built, and asked about shapes
        return _read(tree, path if text is None else None, source, registry, problems)


def read_grid(path: Path) -> str:
    """Return the text of a grid file. GridError where there is none to be had."""
    try:
        return read_text(path)
    except SourceError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: SourceError) -> GridError:
    problems = Problems(str(path))
    problems.add(error.position, "file", error.message)
    return GridError(problems.lines())


def _read(tree: Node, path: Path | None, text: str, registry: Registry, problems: Problems) -> Grid:
    entries = choices.mapping(tree, "grid", problems)
    problems.stop_if_any()
    for key in entries.keys() - set(KEYS):
        choices.unknown_key(tree, key, key, KEYS, problems)
    words = _words(tree, entries, path, problems)
    factors = read_factors(entries, problems)
    candidates = read_estimators(entries["estimators"], registry, problems) if "estimators" in entries else []
    schedules, devices = [Placed(Constant(), tree.position, "schedules")], [Placed("cpu", tree.position, "devices")]
    if "schedules" in entries:
        schedules = choices.read_schedules(entries["schedules"], problems)
    if "devices" in entries:
        devices = _devices(entries["devices"], problems)
    seeds = _seeds(entries["seeds"], problems) if "seeds" in entries else []
    diagnostics, basket = None, list[Any]()
    if "diagnostics" in entries:
        diagnostics, basket = read_diagnostics(entries["diagnostics"], registry, problems)
    for key in EXAMPLES.keys() - entries.keys():
        message = f"expected a list of at least one {key[:-1]}, got none. Add {key}: {EXAMPLES[key]}."
        problems.add(tree.position, key, message)
    _refuse_repeats(candidates, schedules, devices, seeds, problems)
    built = build_all(candidates, schedules, registry, problems)
    problems.stop_if_any()

    pairs = [pair for c in candidates for pair in _scheduled(c, schedules, registry)]
    _check_count([*factors, pairs, devices, seeds], tree, problems)
    settings = expand(factors, Placed(None, tree.position, "grid"), problems)
    shapes = {(s["model"].n_latents, s["model"].n_categories): None for s in settings}
    check_shapes(built, shapes, problems)
    check_basket(basket, shapes, problems)
    if any(setting["training"].compile == "on" for setting in settings):
        check_compiles(built, schedules, next(iter(shapes)), problems)
    problems.stop_if_any()

    varies = (*varying(settings), *(["device"] if len(devices) > 1 else []))
    shared: dict[str, Any] = {"diagnostics": diagnostics, "varies": varies}
    runs = tuple(
        RunConfig(**setting, **shared, estimator=estimator, schedule=schedule, device=device, seed=seed)
        for seed, device, setting, (estimator, schedule) in product(_values(seeds), _values(devices), settings, pairs)
    )
    runs = _told_apart(runs, len(runs) // len(seeds))
    notes = (*_notes(candidates, schedules, registry), *_dear(built, shapes))
    notes = (*notes, *_effects(settings, diagnostics, pairs))
    if "cpu" in _values(devices) and any(setting["model"].precision == "tf32" for setting in settings):
        notes = (*notes, "precision tf32 changes nothing on the CPU: it is a setting of NVIDIA GPUs")
    return Grid(runs=runs, text=text, notes=notes, **words)


def _told_apart(runs: tuple[RunConfig, ...], n_settings: int) -> tuple[RunConfig, ...]:
    """The runs, of which the first so many have one seed. Settings of one label get a label that tells them apart."""
    first = runs[:n_settings]
    if len({run.label for run in first}) == n_settings:
        return runs
    from reports.contract.settings import distinct

    forms = [run.model_copy(update={"quoted": True}).label for run in first]
    found = distinct(range(n_settings), lambda i: first[i].label, lambda i: forms[i])
    quoted = [found[i] != run.label for i, run in enumerate(first)]
    return tuple(
        run.model_copy(update={"quoted": True}) if quoted[i % n_settings] else run for i, run in enumerate(runs)
    )


def _values(placed: Iterable[Placed]) -> list[Any]:
    return [one.value for one in placed]


def _refuse_repeats(
    candidates: Iterable[Placed],
    schedules: Iterable[Placed],
    devices: Iterable[Placed],
    seeds: Iterable[Placed],
    problems: Problems,
) -> None:
    """Every axis has different values, so every run of their product is different from all others."""
    choices.refuse_repeats(candidates, problems)
    choices.refuse_repeats(schedules, problems)
    choices.refuse_repeated_values(devices, problems)
    choices.refuse_repeated_values(seeds, problems)


def _check_count(factors: Iterable[Sized], tree: Node, problems: Problems) -> None:
    count = math.prod(map(len, factors))
    if count > MAX_RUNS:
        problems.add(tree.position, "grid", f"expected at most {MAX_RUNS} runs, got {count}.")
        problems.stop_if_any()


def _words(tree: Node, entries: Mapping[str, Node], path: Path | None, problems: Problems) -> dict[str, str]:
    """The texts about the grid. Without a name it is called like its file; what came through a pipe has none."""
    if path is None and "name" not in entries:
        problems.add(tree.position, "name", "expected a name, since this grid comes through a pipe, got none. Add one.")
    words = {"name": default_name(path) if path else ""}
    for key in ("name", "question", "description"):
        if key in entries:
            words[key] = entries[key].value
            if not isinstance(words[key], str):
                problems.expected(choices.at(entries[key], key), "text", entries[key].plain())
    if "name" in entries and isinstance(words["name"], str) and not NAME.fullmatch(words["name"]):
        problems.expected(choices.at(entries["name"], "name"), NAME_RULE, words["name"])
    elif isinstance(words["name"], str) and is_reserved(words["name"]):
        hint = "Give the grid another name." if "name" in entries else f"Add name: to {path}, or rename it."
        where = choices.at(entries["name"], "name") if "name" in entries else Placed(None, tree.position, "name")
        problems.expected(where, f"none of {', '.join(RESERVED)}", words["name"], hint=hint)
    return words


def is_reserved(name: str) -> bool:
    """Return whether a results folder or MLflow uses this name for something else."""
    small = name.lower()
    return small in {each.lower() for each in RESERVED} or small.startswith("mlflow.db")


def default_name(path: Path) -> str:
    """What the grid of a file is called unless it says so itself."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:64] or "grid"


def _devices(node: Node, problems: Problems) -> list[Placed]:
    found = [choices.at(item, path) for item, path in choices.items(node, "devices", "device", problems)]
    for device in found:
        if not isinstance(device.value, str) or not re.fullmatch(DEVICE, device.value):
            hint = "A GPU is cuda, or mps on a Mac." if device.value == "gpu" else ""
            problems.expected(device, "cpu, cuda, cuda:N or mps", device.value, ["cpu", "cuda", "cuda:0", "mps"], hint)
    return found


def _seeds(node: Node, problems: Problems) -> list[Placed]:
    """The seeds: a list of them, or how many and from which one on."""
    if not isinstance(node.value, dict):
        found = [choices.at(item, path) for item, path in choices.items(node, "seeds", "seed", problems)]
        for seed in found:
            _check_whole(seed, 0, 2**32 - 1, problems)
        return found
    numbers = {"first": Placed(0, node.position, "seeds.first")}
    for key, value in node.value.items():
        if key not in ("first", "count"):
            choices.unknown_key(node, key, f"seeds.{key}", ["first", "count"], problems)
        numbers[key] = choices.at(value, f"seeds.{key}")
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


def _scheduled(candidate: Candidate, schedules: list[Placed], registry: Registry) -> list[Any]:
    """The estimator with each schedule that is for it; what a schedule sets is no parameter any more."""
    mine = schedules_for(registry[candidate.value.name], schedules)
    if not mine:
        return [(candidate.value, NoSchedule())]
    rest = {key: value for key, value in candidate.value.params.items() if key not in mine[0].value.sets}
    return [(candidate.value.model_copy(update={"params": rest}), schedule.value) for schedule in mine]


def _dear(built: Built, shapes: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """How many decoder evaluations a step takes, of the estimators that need MANY: before anybody waits for them."""
    counts = {
        (candidate.value.label, *shape): estimator.n_cost_evals(*shape)
        for candidate, estimator in built
        for shape in shapes
    }
    return tuple(
        f"{label} evaluates the decoder {count:,} times per image and step at {n_latents} × {n_categories} latents"
        for (label, n_latents, n_categories), count in counts.items()
        if count >= MANY
    )


def _effects(settings: list[Setting], diagnostics: DiagnosticsConfig | None, pairs: list[Any]) -> tuple[str, ...]:
    """What changes nothing on the data and the budget at hand, each once."""
    found: dict[str, None] = {}
    schedules = {schedule: None for _, schedule in pairs if not isinstance(schedule, NoSchedule)}
    for data, training, evaluation in {(s["data"], s["training"], s["evaluation"]): None for s in settings}:
        has = effects.budget(data, training)
        found |= dict.fromkeys(effects.of_training(training, has))
        found |= dict.fromkeys(effects.of_evaluation(evaluation, training))
        found |= dict.fromkeys(effects.of_schedules(schedules, has))
        found |= dict.fromkeys(effects.of_diagnostics(diagnostics, training, has) if diagnostics else ())
    return tuple(found)


def _notes(candidates: list[Candidate], schedules: list[Placed], registry: Registry) -> tuple[str, ...]:
    """What was not crossed, estimator by estimator, where a reader of the grid may have expected it."""
    notes = []
    for name in dict.fromkeys(c.value.name for c in candidates):
        cls = registry[name]
        left_out = len(schedules) - len(schedules_for(cls, schedules))
        if left_out and len(schedules) > 1:
            what = " and ".join(cls.temperatures) if cls.temperatures else "no tau"
            count = max(1, len(schedules) - left_out)
            is_are = f"{name} ignores tau" if not cls.temperatures else f"{name} has {what}"
            notes.append(f"{is_are}: {count} schedule{'s' * (count > 1)} instead of {len(schedules)}")
    return tuple(notes)
