"""The quick conformance of plug-ins: checked before the first run, since a wrong estimator also finishes and is ranked.

Each plug-in is built as the grid asks for it, and tried by `estimators.conformance.QUICK` on small logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.plugin_errors import defined_at, file_of, line_of, words
from harness.plugins import PluginError, import_notes, source_of
from harness.process_state import kept, note

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.config import RunConfig
    from harness.plugins import Registry

BUDGET_S = 3.0
"""Once so much time has gone no further setting of a plug-in is checked, nor further checks of one that is slow."""
PASSED, SKIPPED = "passed", "skipped by --no-check"


@dataclass(frozen=True)
class Found:
    """What `check` found: PASSED or SKIPPED, None without plug-ins; and lines for the user."""

    conformance: str | None
    notes: tuple[str, ...] = ()


def check(runs: Iterable[RunConfig], registry: Registry, *, skip: bool = False) -> Found:
    """Check every plug-in of the runs, with the parameters and first temperatures that it has there.

    Raises PluginError, one line, for the first that is wrong. `skip` checks nothing.
    """
    asked = settings(runs, registry)
    imported = import_notes(registry)
    if not asked:
        return Found(None, tuple(imported))
    if skip:
        return Found(SKIPPED, tuple(imported))
    begun, tried, notes = time.perf_counter(), set[str](), dict.fromkeys(imported)
    n_checked = 0
    for name, params in asked:
        if name in tried and time.perf_counter() - begun > BUDGET_S:
            continue
        tried.add(name)
        n_checked += 1
        notes |= dict.fromkeys(_check_one(registry[name], registry, params))
    if n_checked < len(asked):
        notes[f"{n_checked} of {len(asked)} settings of plug-ins were checked, in {BUDGET_S:g} s"] = None
    return Found(PASSED, tuple(notes))


def settings(runs: Iterable[RunConfig], registry: Registry) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every different setting of a plug-in, also of one in a basket of diagnostics: its name and parameters."""
    found: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for run in runs:
        first = run.schedule.temperatures(0, steps_per_epoch=1, n_steps=1)
        entries: list[tuple[str, Mapping[str, Any]]] = [(run.estimator.name, {**run.estimator.params, **first})]
        entries += [(entry.name, entry.params) for entry in run.diagnostics.basket] if run.diagnostics else []
        for name, params in entries:
            if source_of(registry[name]) is not None:
                found.setdefault((name, repr(sorted(params.items()))), (name, params))
    return list(found.values())


def _check_one(cls: type[Estimator], registry: Registry, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the user should know of a plug-in that passes. Raises PluginError for one that does not."""
    from estimators import build
    from estimators.conformance import QUICK

    begun, n_done = time.perf_counter(), 0
    try:
        with kept() as by_building:  # put back before the first call, as in a run
            estimator = build(cls.name, registry, **params)
        with kept() as by_calling:
            for one in QUICK:
                if n_done and time.perf_counter() - begun > BUDGET_S:
                    break
                one(estimator)
                n_done += 1
    except AssertionError as error:
        raise PluginError(_refusal(cls, " ".join(str(error).split()), defined_at(cls))) from error
    except Exception as error:  # whatever a user's class raises is its result
        raise PluginError(_refusal(cls, words(error, cls), line_of(error, cls))) from error
    if changed := list(dict.fromkeys([*by_building, *by_calling])):
        yield note(cls.name, changed)
    if n_done < len(QUICK):
        yield f"{cls.name} is slow: {n_done} of {len(QUICK)} quick checks were made, in {BUDGET_S:g} s"


def _refusal(cls: type[Estimator], what: str, place: str | None) -> str:
    text = what.removeprefix("ValueError: ")
    text = text if text.startswith(f"{cls.name}:") else f"{cls.name}: {text}"
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    stop = "" if text.endswith((".", "…")) else "."
    return (
        f"{place or cls.__module__}: {text}{stop} `python -m estimators.conformance {file_of(cls) or 'FILE'}` checks it"
        " by itself; --no-check runs it as it is."
    )


LONGEST = 400
"""A refusal quotes what it got, which may be a whole tensor, up to so many characters."""
