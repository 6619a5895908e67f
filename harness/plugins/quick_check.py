"""The quick conformance checks of plug-ins before the first run: a wrong estimator also finishes and is ranked.

Each plug-in is built as the grid asks for it, and checked by `estimators.conformance.QUICK` on small logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.plugins.errors import defined_at, explained, file_of, line_of
from harness.plugins.registry import PluginError, import_notes, source_of
from harness.process_state import change_note, preserved

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.config import RunConfig
    from harness.plugins.registry import Registry

BUDGET_S = 3.0
"""After this time no further check of a setting begins, and no second setting of a plug-in. A check that has begun is
finished, so slow plug-ins take longer."""
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
    settings = plugin_settings(runs, registry)
    imported = import_notes(registry)
    if not settings:
        return CheckResult(None, tuple(imported))
    if skip:
        return CheckResult(SKIPPED, tuple(imported))
    begun, tried, notes = time.perf_counter(), set[str](), dict.fromkeys(imported)
    n_checks: list[int] = []
    for name, params, model in settings:
        if name in tried and time.perf_counter() - begun > BUDGET_S:
            continue
        tried.add(name)
        n_done, found = _check_one(registry[name], registry, params, model)
        n_checks.append(n_done)
        notes |= dict.fromkeys(found)
    if len(n_checks) < len(settings):
        taken = time.perf_counter() - begun
        notes[f"{len(n_checks)} of {len(settings)} settings of plug-ins were checked, in {taken:.1f} s"] = None
    return CheckResult(_passed(n_checks, len(settings)), tuple(notes))


def _passed(n_checks: list[int], n_settings: int) -> str:
    """Return PASSED, with how much was checked if not all. `n_checks` has the number of checks of each setting."""
    from estimators.conformance import QUICK

    parts = [f"{len(n_checks)} of {n_settings} settings"] if len(n_checks) < n_settings else []
    if min(n_checks) < len(QUICK):
        parts.append(f"{'at least ' if n_settings > 1 else ''}{min(n_checks)} of {len(QUICK)} checks")
    return f"{PASSED} ({', '.join(parts)})" if parts else PASSED


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
) -> tuple[int, list[str]]:
    """Return how many checks a plug-in passed, and lines for the user. Raises PluginError if one fails."""
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
    except Exception as error:  # a user's class may raise anything
        raise PluginError(_refusal(cls, explained(error, cls), line_of(error, cls))) from error
    changed = list(dict.fromkeys([*by_building, *by_calling]))
    notes = [change_note(cls.name, changed)] if changed else []
    notes += _untrained(estimator)
    if n_done < len(QUICK):
        taken = time.perf_counter() - begun
        notes.append(f"{cls.name} takes long: {n_done} of {len(QUICK)} quick checks were made, in {taken:.1f} s")
    return n_done, notes


def _untrained(estimator: Estimator) -> list[str]:
    """Return a line about parameters that nothing trains: Pathwise has no loss for them."""
    from estimators import Pathwise

    names = [name for name, one in estimator.named_parameters() if one.requires_grad]
    if not names or type(estimator).forward is not Pathwise.forward:
        return []
    return [
        f"{estimator.name} has parameters that are never trained: {', '.join(names)}. An estimator trains its own by"
        " the control_loss of its Estimate, which Pathwise does not have (docs/add-an-estimator.md)"
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
"""A refusal quotes at most so many characters of what it got, which may be a whole tensor."""
