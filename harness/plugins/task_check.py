"""The conformance checks of a task in a plug-in, with errors that name the user's file and line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.plugins.check_result import Result
from harness.plugins.errors import defined_at, explained, line_of
from harness.process_state import change_note, preserved

if TYPE_CHECKING:
    from harness.config import DataConfig
    from harness.tasks import Task
    from harness.tasks.conformance import Check, Subject

QUICK_S = 2.0
"""After this time no further check of a task begins before a sweep."""


def check_task(
    cls: type[Task], params: Mapping[str, Any], config: DataConfig | None = None, budget_s: float = QUICK_S
) -> tuple[list[Result], int, list[str]]:
    """Return the results of the quick checks of a task up to the first that fails, how many there are, and notes.

    `config` is the `data` section of a grid, for a task with images. After `budget_s` no further check begins.
    """
    from harness.tasks.conformance import QUICK

    begun, results, notes = time.perf_counter(), list[Result](), list[str]()
    with preserved() as changed:
        for result in _results(cls, params, config, QUICK, notes, every_estimator=False):
            results.append(result)
            if result.failed or time.perf_counter() - begun > budget_s:
                break
    return results, len(QUICK), [*notes, *([change_note(cls.name, changed)] if changed else [])]


def check_whole_task(cls: type[Task]) -> Iterator[Result]:
    """Yield the result of every check of a task with its default parameters; a warning is a check `warning`."""
    from harness.tasks.conformance import CHECKS

    notes: list[str] = []
    with preserved():
        yield from _results(cls, {}, None, CHECKS, notes, every_estimator=True)
    yield from (Result("warning", note, place=defined_at(cls, "measure")) for note in notes)


def _results(
    cls: type[Task],
    params: Mapping[str, Any],
    config: DataConfig | None,
    checks: tuple[Check, ...],
    notes: list[str],
    *,
    every_estimator: bool,
) -> Iterator[Result]:
    """Yield the results of checks, those of the task alone once, the others for each estimator."""
    from harness.tasks.conformance import OF_THE_TASK, subjects

    try:
        found = subjects(cls, params, config)
    except Exception as error:  # noqa: BLE001  # a user's class may raise anything
        yield _failure(cls, "building", error)
        return
    for check in checks:
        once = check in OF_THE_TASK or not every_estimator
        for subject in found[:1] if once else found:
            name = check.__name__ if once else f"{check.__name__}({subject.estimator.name})"
            yield _result(cls, name, check, subject)
    notes += dict.fromkeys(line for subject in found for line in subject.warnings)


def _result(cls: type[Task], name: str, check: Check, subject: Subject) -> Result:
    try:
        return Result(name, check(subject))
    except Exception as error:  # noqa: BLE001  # a user's class may raise anything
        return _failure(cls, name, error)


def _failure(cls: type[Task], name: str, error: Exception) -> Result:
    from harness.tasks.conformance import ConformanceError

    if isinstance(error, ConformanceError):
        return Result(name, str(error), failed=True, place=defined_at(cls, error.method))
    text = " ".join(explained(error, cls).split()).removeprefix("ValueError: ")
    text = text if text.startswith(f"{cls.name}:") else f"{cls.name}: {text}"
    return Result(name, text, failed=True, place=line_of(error, cls))
