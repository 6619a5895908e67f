"""`harness check`: every conformance check on the estimators and tasks of plug-in files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.shared import FILE
from reports.contract.text import visible

if TYPE_CHECKING:
    from harness.plugins.check_result import Result
    from harness.plugins.loading import PluginClass


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE…")
def check(files: Sequence[Path]) -> None:
    """Check the estimators and tasks that Python files define, with default parameters.

    Prints a line for each check. A failure begins with your file and line, and says what was expected and what to do.
    The exit code is 1 if a check failed. `harness run` makes the quick ones of these checks by itself.
    """
    from harness.plugins.registry import load_registry

    registry = load_registry(files)
    n_passed = n_failed = 0
    for name, result in _results(registry.of_files):
        if result.failed:
            n_failed += 1
            line = f"{result.place or name}: {result.text} [{result.check}: FAILED]"
        elif result.check == "warning":
            line = f"{result.place or name}: warning: {result.text}"
        else:
            n_passed += 1
            line = f"{name}: {result.check}: {result.text}"
        click.echo(visible(line))
    click.echo(f"{n_passed} checks passed, {n_failed} failed.")
    sys.exit(int(n_failed > 0))


def _results(classes: Sequence[PluginClass]) -> Iterator[tuple[str, Result]]:
    """Yield each result after the name of the estimator or task."""
    from estimators import Estimator
    from harness.plugins.estimator_check import check_whole_estimator
    from harness.plugins.task_check import check_whole_task

    for cls in classes:
        found = check_whole_estimator(cls) if issubclass(cls, Estimator) else check_whole_task(cls)
        for result in found:
            yield cls.name, result
