"""The quick conformance checks of plug-ins before the first run: a wrong estimator or task also finishes and is ranked.

Each plug-in is built as the grid asks for it. Estimators are checked by `estimators.conformance.QUICK` on small logits,
tasks by `harness.tasks.conformance.QUICK` on a few of their examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.plugins.errors import defined_at, explained, file_of, line_of
from harness.plugins.registry import PluginError, datasets_of, import_notes, source_of, tasks_of
from harness.plugins.task_check import check_task
from harness.process_state import change_note, preserved

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.config import DataConfig, RunConfig
    from harness.plugins.registry import Registry
    from harness.tasks import Task

BUDGET_S = 3.0
"""After this time no further check of a setting begins, and no second setting of a plug-in. A check that has begun is
finished, so slow plug-ins take longer."""
BY = "python -m estimators.conformance"
"""The command that checks an estimator by itself."""
PASSED, SKIPPED = "passed", "skipped by --no-check"


@dataclass(frozen=True)
class CheckResult:
    """The result of `check`, and lines for the user."""

    conformance: str | None  # PASSED, with how much was checked if not all; SKIPPED; None without plug-ins
    notes: tuple[str, ...] = ()


def check(runs: Iterable[RunConfig], registry: Registry, *, skip: bool = False) -> CheckResult:
    """Check every plug-in of the runs, with its parameters and first temperatures; with `skip` check nothing.

    Raises PluginError, with one line, for the first that is wrong.
    """
    runs = list(runs)
    settings = [*_estimator_checks(runs, registry), *_task_checks(runs, registry)]
    imported = import_notes(registry)
    if not settings:
        return CheckResult(None, tuple(imported))
    if skip:
        return CheckResult(SKIPPED, tuple(imported))
    begun, tried, notes = time.perf_counter(), set[type](), dict.fromkeys(imported)
    done: list[tuple[int, int]] = []
    for cls, check_one in settings:
        if cls in tried and time.perf_counter() - begun > BUDGET_S:
            continue
        tried.add(cls)
        n_done, n_checks, found = check_one()
        done.append((n_done, n_checks))
        notes |= dict.fromkeys(found)
    if len(done) < len(settings):
        taken = time.perf_counter() - begun
        notes[f"{len(done)} of {len(settings)} settings of plug-ins were checked, in {taken:.1f} s"] = None
    return CheckResult(_passed(done, len(settings)), tuple(notes))


def _passed(done: list[tuple[int, int]], n_settings: int) -> str:
    """Return PASSED, with how much was checked if not all. `done` has the checks done of those of each setting."""
    parts = [f"{len(done)} of {n_settings} settings"] if len(done) < n_settings else []
    fewest, n_checks = min(done, key=lambda counts: counts[0] / counts[1])
    if fewest < n_checks:
        parts.append(f"{'at least ' if n_settings > 1 else ''}{fewest} of {n_checks} checks")
    return f"{PASSED} ({', '.join(parts)})" if parts else PASSED


OneCheck = tuple[type, Callable[[], tuple[int, int, list[str]]]]
"""A plug-in's class, and the check of one of its settings: how many checks passed, of how many, and notes."""


def _estimator_checks(runs: Iterable[RunConfig], registry: Registry) -> Iterator[OneCheck]:
    for name, params, model in plugin_settings(runs, registry):
        yield registry[name], partial(_check_one, registry[name], registry, params, model)


def _task_checks(runs: Iterable[RunConfig], registry: Registry) -> Iterator[OneCheck]:
    """Yield the check of every different setting of a task in a plug-in."""
    tasks, found = tasks_of(registry), dict[tuple[str, str], OneCheck]()
    for run in runs:
        if run.task is not None and source_of(tasks[run.task.name]) is not None:
            cls, sources = tasks[run.task.name], datasets_of(registry)
            config = run.data.with_source(sources) if run.task.uses_images else None
            key = run.task.canonical, config.canonical if config else ""
            found.setdefault(key, (cls, partial(_check_task, cls, run.task.params, config)))
    yield from found.values()


def _check_task(cls: type[Task], params: Mapping[str, Any], config: DataConfig | None) -> tuple[int, int, list[str]]:
    """Check one setting of a task. Raises PluginError if a check fails."""
    begun = time.perf_counter()
    results, n_checks, notes = check_task(cls, params, config)
    for result in results:
        if result.failed:
            raise PluginError(_refusal(cls, result.text, result.place, "harness check"))
    if len(results) < n_checks:
        taken = time.perf_counter() - begun
        notes.append(f"{cls.name} takes long: {len(results)} of {n_checks} quick checks were made, in {taken:.1f} s")
    return len(results), n_checks, notes


PluginSetting = tuple[str, Mapping[str, Any], tuple[int, int]]
"""An estimator's name, its parameters, and the latents and classes of the first model that it is run with."""


def plugin_settings(runs: Iterable[RunConfig], registry: Registry) -> list[PluginSetting]:
    """Return every different setting of a plug-in, those in a basket of diagnostics included."""
    found: dict[tuple[str, str], PluginSetting] = {}
    for run in runs:
        first = run.schedule.temperatures(0, steps_per_epoch=1, n_steps=1)
        entries: list[tuple[str, Mapping[str, Any]]] = [(run.estimator.name, {**run.estimator.params, **first})]
        entries += [(entry.name, entry.params) for entry in run.diagnostics.basket] if run.diagnostics else []
        for name, params in entries:
            if source_of(registry[name]) is not None:
                model = next(iter(run.layers.values()))
                found.setdefault((name, repr(sorted(params.items()))), (name, params, model))
    return list(found.values())


def _check_one(
    cls: type[Estimator], registry: Registry, params: Mapping[str, Any], model: tuple[int, int]
) -> tuple[int, int, list[str]]:
    """Return how many checks an estimator passed, of how many, and notes. Raises PluginError if one fails."""
    from estimators import build
    from estimators.conformance import QUICK

    begun, n_done = time.perf_counter(), 0
    try:
        with preserved() as by_building:  # put back before the first call, as in a run
            estimator = build(cls.name, registry, **params)
        with preserved() as by_calling:
            for one in QUICK:
                if n_done and time.perf_counter() - begun > BUDGET_S:
                    break
                one(estimator, model=model)
                n_done += 1
    except AssertionError as error:
        raise PluginError(_refusal(cls, " ".join(str(error).split()), defined_at(cls), BY)) from error
    except Exception as error:  # a user's class may raise anything
        raise PluginError(_refusal(cls, explained(error, cls), line_of(error, cls), BY)) from error
    changed = list(dict.fromkeys([*by_building, *by_calling]))
    notes = [change_note(cls.name, changed)] if changed else []
    notes += _untrained(estimator)
    if n_done < len(QUICK):
        taken = time.perf_counter() - begun
        notes.append(f"{cls.name} takes long: {n_done} of {len(QUICK)} quick checks were made, in {taken:.1f} s")
    return n_done, len(QUICK), notes


def _untrained(estimator: Estimator) -> list[str]:
    """Return a line about parameters that nothing trains: Pathwise has no loss for them."""
    from estimators import Pathwise
    from estimators.unimix import Mixed

    estimator = estimator.inner if isinstance(estimator, Mixed) else estimator
    names = [name for name, one in estimator.named_parameters() if one.requires_grad]
    if not names or type(estimator).forward is not Pathwise.forward:
        return []
    return [
        f"{estimator.name} has parameters that are never trained: {', '.join(names)}. An estimator trains its own by"
        " the control_loss of its Estimate, which Pathwise does not have (docs/add-an-estimator.md)"
    ]


def _refusal(cls: type[Estimator] | type[Task], what: str, place: str | None, by: str) -> str:
    text = what.removeprefix("ValueError: ")
    text = text if text.startswith(f"{cls.name}:") else f"{cls.name}: {text}"
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    stop = "" if text.endswith((".", "…")) else "."
    return (
        f"{place or cls.__module__}: {text}{stop} `{by} {file_of(cls) or 'FILE'}` checks it by itself; --no-check runs"
        " it as it is."
    )


LONGEST = 400
"""A refusal quotes at most so many characters of what it got, which may be a whole tensor."""
