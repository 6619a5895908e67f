"""The quick conformance of plug-ins: checked before the first run, since a wrong estimator also finishes and is ranked.

Each plug-in is built as the grid asks for it, and tried by `estimators.conformance.QUICK` on small logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.plugins.errors import defined_at, file_of, line_of, words
from harness.plugins.registry import PluginError, import_notes, source_of
from harness.process_state import change_note, preserved

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.config import RunConfig
    from harness.plugins.registry import Registry

BUDGET_S = 3.0
"""Once so much time has gone, no further check of a setting begins, and no second setting of a plug-in. A check that
has begun is finished, so that a plug-in whose calls take seconds takes longer."""
PASSED, SKIPPED = "passed", "skipped by --no-check"


@dataclass(frozen=True)
class Found:
    """What `check` found: PASSED, with how much was checked if not all, or SKIPPED; None without plug-ins. And lines
    for the user.
    """

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
    done: list[int] = []
    for name, params, model in asked:
        if name in tried and time.perf_counter() - begun > BUDGET_S:
            continue
        tried.add(name)
        n_made, found = _check_one(registry[name], registry, params, model)
        done.append(n_made)
        notes |= dict.fromkeys(found)
    if len(done) < len(asked):
        taken = time.perf_counter() - begun
        notes[f"{len(done)} of {len(asked)} settings of plug-ins were checked, in {taken:.1f} s"] = None
    return Found(_passed(done, len(asked)), tuple(notes))


def _passed(done: list[int], n_settings: int) -> str:
    """Return PASSED, with how much was checked where that is not all. `done` has the number of checks of a setting."""
    from estimators.conformance import QUICK

    parts = [f"{len(done)} of {n_settings} settings"] if len(done) < n_settings else []
    if min(done) < len(QUICK):
        parts.append(f"{'at least ' if n_settings > 1 else ''}{min(done)} of {len(QUICK)} checks")
    return f"{PASSED} ({', '.join(parts)})" if parts else PASSED


Setting = tuple[str, Mapping[str, Any], tuple[int, int]]
"""An estimator's name, its parameters, and the latents and classes of the first model that it is run with."""


def settings(runs: Iterable[RunConfig], registry: Registry) -> list[Setting]:
    """Return every different setting of a plug-in, also of one in a basket of diagnostics."""
    found: dict[tuple[str, str], Setting] = {}
    for run in runs:
        first = run.schedule.temperatures(0, steps_per_epoch=1, n_steps=1)
        entries: list[tuple[str, Mapping[str, Any]]] = [(run.estimator.name, {**run.estimator.params, **first})]
        entries += [(entry.name, entry.params) for entry in run.diagnostics.basket] if run.diagnostics else []
        for name, params in entries:
            if source_of(registry[name]) is not None:
                model = run.model.n_latents, run.model.n_categories
                found.setdefault((name, repr(sorted(params.items()))), (name, params, model))
    return list(found.values())


def _check_one(
    cls: type[Estimator], registry: Registry, params: Mapping[str, Any], model: tuple[int, int]
) -> tuple[int, list[str]]:
    """Return how many checks a plug-in passed, and what the user should know. Raises PluginError for a wrong one."""
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
        raise PluginError(_refusal(cls, " ".join(str(error).split()), defined_at(cls))) from error
    except Exception as error:  # whatever a user's class raises is its result
        raise PluginError(_refusal(cls, words(error, cls), line_of(error, cls))) from error
    changed = list(dict.fromkeys([*by_building, *by_calling]))
    notes = [change_note(cls.name, changed)] if changed else []
    notes += _untrained(estimator)
    if n_done < len(QUICK):
        taken = time.perf_counter() - begun
        notes.append(f"{cls.name} takes long: {n_done} of {len(QUICK)} quick checks were made, in {taken:.1f} s")
    return n_done, notes


def _untrained(estimator: Estimator) -> list[str]:
    """Return a line about parameters that nothing trains: what is pathwise has no loss for them."""
    from estimators import Pathwise

    names = [name for name, one in estimator.named_parameters() if one.requires_grad]
    if not names or type(estimator).forward is not Pathwise.forward:
        return []
    return [
        f"{estimator.name} has parameters that are never trained: {', '.join(names)}. An estimator trains its own by"
        " the control_loss of its Estimate, which Pathwise has not (docs/add-an-estimator.md)"
    ]


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
