"""The whole conformance of an estimator or a task in a plug-in, as results that name the user's file and line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.plugins.check_result import Result
from harness.plugins.errors import defined_at, explained, line_of
from harness.plugins.task_check import check_whole_task
from harness.process_state import preserved

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.plugins.loading import PluginClass


def check_whole(cls: PluginClass) -> Iterator[Result]:
    """Yield the result of every check of an estimator or a task with its default parameters."""
    from estimators import Estimator

    yield from _check_estimator(cls) if issubclass(cls, Estimator) else check_whole_task(cls)


def _check_estimator(cls: type[Estimator]) -> Iterator[Result]:
    from estimators.conformance import CHECKS

    for check in CHECKS:
        name = check.__name__
        with preserved():
            try:
                yield Result(name, check(cls()))
            except AssertionError as error:
                yield Result(name, " ".join(str(error).split()), failed=True, place=defined_at(cls))
            except Exception as error:  # noqa: BLE001  # a user's class may raise anything
                yield Result(name, explained(error, cls), failed=True, place=line_of(error, cls))
