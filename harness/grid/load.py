"""A grid file → the runs of a sweep, all of them validated and built before the first one starts.

docs/grid.md describes the file. The reading of single settings is in `harness.grid.choices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import DiagnosticsConfig, RunConfig
from harness.grid import choices
from harness.grid.axes import read_devices, read_schedules, read_seeds
from harness.grid.blocks import Block, Expanded, expand_blocks, make_blocks, refuse_repeated_runs
from harness.grid.choices import MAX_RUNS, Placed
from harness.grid.diagnostics import check_basket, read_diagnostics
from harness.grid.errors import ErrorList, GridError
from harness.grid.estimators import (
    BuiltEstimators,
    Candidate,
    build_all,
    check_compiles,
    check_shapes,
    own_settings_of,
    read_estimators,
)
from harness.grid.name_and_texts import read_texts
from harness.grid.notes import expensive_notes, ineffective_notes, schedule_notes, skip_notes, unused_notes
from harness.grid.sections import SECTIONS, Factor, read_factors, refuse_unused, varying
from harness.grid.tasks import TaskChoice, read_tasks
from harness.grid.yaml_nodes import Node, SourceError, parse, read_text
from harness.plugins.registry import datasets_of
from harness.schedules import Constant, NoSchedule

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

__all__ = ["Grid", "GridError", "load_grid"]

KEYS = (
    *("name", "question", "description", "task"),
    *SECTIONS,
    *("diagnostics", "estimators", "schedules", "devices", "seeds", "zip"),
)
EXAMPLES = {"estimators": "[straight_through]", "seeds": "[0, 1, 2]"}


@dataclass(frozen=True)
class Grid:
    """The runs of a grid file, with seeds as the outermost loop, and what a person should know about them."""

    name: str
    runs: tuple[RunConfig, ...] = field(repr=False)
    text: str = field(repr=False)
    question: str = ""
    description: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entries:
    """What the entries of a grid file say, each checked by itself."""

    tasks: list[TaskChoice]
    factors: list[Factor]
    candidates: list[Candidate]
    schedules: list[Placed]
    devices: list[Placed]
    seeds: list[Placed]
    diagnostics: DiagnosticsConfig | None
    basket: BuiltEstimators


def load_grid(path: Path | str, registry: Registry, text: str | None = None) -> Grid:
    """Read, check and expand a grid file.

    `text` is that of a grid that came through a pipe and was read already; it must state its name. Raises GridError,
    with a line for every error found.
    """
    path = Path(path)
    try:
        source = read_text(path) if text is None else text
        tree = parse(source)
    except SourceError as error:
        raise _unreadable(path, error) from error
    from harness.process_state import preserved

    with preserved():  # building plug-ins and checking shapes may change the process
        return _read(tree, path if text is None else None, source, registry, ErrorList(str(path)))


def read_grid(path: Path) -> str:
    """Return the text of a grid file. Raises GridError if it cannot be read."""
    try:
        return read_text(path)
    except SourceError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: SourceError) -> GridError:
    errors = ErrorList(str(path))
    errors.add(error.position, "file", error.message)
    return GridError(errors.lines())


def _read(tree: Node, path: Path | None, text: str, registry: Registry, errors: ErrorList) -> Grid:
    entries = choices.read_mapping(tree, "grid", errors)
    errors.stop_if_any()
    for key in entries.keys() - set(KEYS):
        choices.refuse_key(tree, key, key, KEYS, errors)
    texts = read_texts(tree, entries, path, errors)
    read = _read_entries(tree, registry, errors)
    built = build_all(read.candidates, read.schedules, registry, errors)
    errors.stop_if_any()

    blocks = make_blocks(read.candidates, read.factors, read.schedules, registry)
    _check_count(blocks, read, tree, errors)
    expanded = expand_blocks(blocks, read.tasks, Placed(None, tree.position, "grid"), errors, datasets_of(registry))
    for each in expanded:
        _check_block(each, built, read, errors)
    check_basket(read.basket, list(dict.fromkeys(shape for each in expanded for shape in each.shapes)), errors)
    varies = _varies(read, expanded)
    refuse_repeated_runs(expanded, varies, errors)
    errors.stop_if_any()
    notes = dict.fromkeys(
        (
            *schedule_notes(read.candidates, read.schedules, registry),
            *unused_notes(read.candidates, read.factors, read.schedules if "schedules" in entries else None),
            *_block_notes(read, expanded, built),
            *skip_notes(built, read.tasks, registry),
        )
    )
    return Grid(runs=_runs(read, expanded, varies), text=text, notes=tuple(notes), **texts)


def _check_block(each: Expanded, built: BuiltEstimators, read: _Entries, errors: ErrorList) -> None:
    """Add an error for each estimator of a block that its settings do not fit."""
    mine = each.of_block(built)
    check_shapes(mine, each.shapes, errors, all_of_them=len({task.name for task in read.tasks}) == 1)
    if any(setting["training"].compile == "on" for setting in each.settings):
        check_compiles(mine, each.block.schedules(read.schedules), each.shapes[0], errors)


def _read_entries(tree: Node, registry: Registry, errors: ErrorList) -> _Entries:
    """Read the entries of a grid and add an error for each mistake, such as a value that is repeated on an axis."""
    entries = tree.value
    tasks = [TaskChoice(None, tree.position, "task")]
    if "task" in entries:
        tasks = read_tasks(entries["task"], registry, errors)
    factors = read_factors(entries, errors)
    if tasks:
        refuse_unused(factors, tasks, errors)
    candidates = read_estimators(entries["estimators"], registry, errors) if "estimators" in entries else []
    for candidate in candidates if tasks else ():
        refuse_unused(candidate.own.factors, tasks, errors, candidate)
    schedules, devices = [Placed(Constant(), tree.position, "schedules")], [Placed("cpu", tree.position, "devices")]
    if "schedules" in entries:
        schedules = read_schedules(entries["schedules"], errors)
    if "devices" in entries:
        devices = read_devices(entries["devices"], errors)
    seeds = read_seeds(entries["seeds"], errors) if "seeds" in entries else []
    diagnostics, basket = None, list[Any]()
    if "diagnostics" in entries:
        diagnostics, basket = read_diagnostics(entries["diagnostics"], registry, errors)
    for key in EXAMPLES.keys() - entries.keys():
        message = f"expected a list of at least one {key[:-1]}, got none. Add {key}: {EXAMPLES[key]}."
        errors.add(tree.position, key, message)
    choices.refuse_repeats(candidates, errors, apart=own_settings_of)
    choices.refuse_repeats(schedules, errors)
    choices.refuse_shared_labels(
        [*schedules, *(one for each in candidates for one in each.own.schedules or ())], errors
    )
    choices.refuse_repeated_values(devices, errors)
    choices.refuse_repeated_values(seeds, errors)
    return _Entries(tasks, factors, candidates, schedules, devices, seeds, diagnostics, basket)


def _check_count(blocks: Iterable[Block], read: _Entries, tree: Node, errors: ErrorList) -> None:
    count = sum(block.count(read.tasks) for block in blocks) * len(read.devices) * len(read.seeds)
    if count > MAX_RUNS:
        errors.add(tree.position, "grid", f"expected at most {MAX_RUNS} runs, got {count}.")
        errors.stop_if_any()


def _varies(read: _Entries, expanded: Iterable[Expanded]) -> tuple[str, ...]:
    """Return the dotted names of the settings that differ between runs, besides estimator, schedule and seed."""
    found = varying([setting for each in expanded for setting in each.settings])
    return (*found, *(["device"] if len(read.devices) > 1 else []))


def _runs(read: _Entries, expanded: Iterable[Expanded], varies: tuple[str, ...]) -> tuple[RunConfig, ...]:
    configurations = [one for each in expanded for one in each.configurations()]
    runs = tuple(
        RunConfig(**one, diagnostics=read.diagnostics, varies=varies, device=device.value, seed=seed.value)
        for seed, device, one in product(read.seeds, read.devices, configurations)
    )
    return _with_distinct_labels(runs, len(runs) // len(read.seeds))


def _with_distinct_labels(runs: tuple[RunConfig, ...], n_settings: int) -> tuple[RunConfig, ...]:
    """Return the runs with another label where two settings share one. The first `n_settings` have the same seed."""
    first = runs[:n_settings]
    if len({run.label for run in first}) == n_settings:
        return runs
    from reports.contract.settings import distinct

    quoted = [run.model_copy(update={"quoted": True}).label for run in first]
    found = distinct(range(n_settings), lambda i: first[i].label, lambda i: quoted[i])
    is_quoted = [found[i] != run.label for i, run in enumerate(first)]
    return tuple(
        run.model_copy(update={"quoted": True}) if is_quoted[i % n_settings] else run for i, run in enumerate(runs)
    )


def _block_notes(read: _Entries, expanded: Iterable[Expanded], built: BuiltEstimators) -> Iterator[str]:
    """Yield notes about expensive estimators, then about settings that change nothing."""
    expanded, is_vae = list(expanded), all(task.value is None for task in read.tasks)
    for each in expanded:
        yield from expensive_notes(each.of_block(built), each.shapes, is_vae=is_vae)
    for each in expanded:
        schedules = dict.fromkeys(used for _, used in each.block.pairs if not isinstance(used, NoSchedule))
        yield from ineffective_notes(each.settings, read.diagnostics, schedules)
    on_cpu = any(device.value == "cpu" for device in read.devices)
    settings = [setting for each in expanded for setting in each.settings]
    if on_cpu and any("model" in each and each["model"].precision == "tf32" for each in settings):
        yield "precision tf32 changes nothing on the CPU: it is a setting of NVIDIA GPUs"
