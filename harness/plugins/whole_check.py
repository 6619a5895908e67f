"""The whole conformance of a class in a plug-in, as results that name the user's file and line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.datasets.descriptions import DataError
from harness.plugins.check_result import Result
from harness.plugins.errors import defined_at, explained, line_of
from harness.plugins.task_check import check_whole_task
from harness.process_state import preserved

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.datasets.image_source import ImageSource
    from harness.plugins.loading import PluginClass


def check_whole(cls: PluginClass) -> Iterator[Result]:
    """Yield the result of every check of a task or an estimator with its default parameters, or of images."""
    from estimators import Estimator
    from harness.datasets.image_source import ImageSource

    if issubclass(cls, Estimator):
        yield from _check_estimator(cls)
    elif issubclass(cls, ImageSource):
        yield _check_images(cls)
    else:
        yield from check_whole_task(cls)


def _check_images(cls: type[ImageSource]) -> Result:
    """Read the images twice: they must be of the right form and the same."""
    from harness.datasets.image_source import read_source

    try:
        first, second = read_source(cls), read_source(cls)
    except DataError as error:
        return Result("images", str(error), failed=True, place=defined_at(cls))
    if first.digest != second.digest:
        text = f"{cls.name}: expected the same images at every call of splits(), got other ones. Seed what it draws."
        return Result("images", text, failed=True, place=defined_at(cls))
    return Result("images", f"{len(first.train):,} for training and {len(first.test):,} for testing")


def _check_estimator(cls: type[Estimator]) -> Iterator[Result]:
    from estimators.conformance import CHECKS
    from estimators.declarations import example

    for check in CHECKS:
        name = check.__name__
        with preserved():
            try:
                yield Result(name, check(example(cls)))
            except AssertionError as error:
                yield Result(name, " ".join(str(error).split()), failed=True, place=defined_at(cls))
            except Exception as error:  # noqa: BLE001  # a user's class may raise anything
                yield Result(name, explained(error, cls), failed=True, place=line_of(error, cls))
