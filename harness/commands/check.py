"""`harness check`: every conformance check on the estimators, tasks and images of plug-in files."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from harness.commands.shared import FILE
from reports.contract.text import visible

NOT_APPLICABLE = "does not apply"
"""How the text of a check begins that was not made, because the task has another form."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE…")
def check(files: Sequence[Path]) -> None:
    """Check the estimators, tasks and images that Python files define, with default parameters.

    Prints a line for each check. A failure begins with your file and line, and says what was expected and what to do.
    The exit code is 1 if a check failed. `harness run` makes the quick ones of these checks by itself.
    """
    from harness.plugins.registry import load_registry
    from harness.plugins.whole_check import check_whole

    n_passed = n_failed = n_unfit = 0
    for name, result in ((cls.name, result) for cls in load_registry(files).of_files for result in check_whole(cls)):
        if result.failed:
            n_failed += 1
            line = f"{result.place or name}: {result.text} [{result.check}: FAILED]"
        elif result.check == "warning":
            line = f"{result.place or name}: warning: {result.text}"
        else:
            n_unfit += NOT_APPLICABLE in result.text
            n_passed += NOT_APPLICABLE not in result.text
            line = f"{name}: {result.check}: {result.text}"
        click.echo(visible(line))
    unfit = f", {n_unfit} do not apply" if n_unfit else ""
    click.echo(f"{n_passed} checks passed, {n_failed} failed{unfit}.")
    sys.exit(int(n_failed > 0))
