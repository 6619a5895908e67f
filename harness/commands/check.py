"""`harness check`: every conformance check on the estimators, tasks and images of plug-in files."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from harness.commands.shared import FILE
from harness.units import counted
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

    passed, unfit, failed = list[str](), list[str](), list[str]()
    for name, result in ((cls.name, result) for cls in load_registry(files).of_files for result in check_whole(cls)):
        line = f"{result.place or name}: {result.text}"
        if result.failed:
            if line not in failed:
                click.echo(visible(f"{line} [{result.check}: FAILED]"))
            failed.append(line)
        elif result.check == "warning":
            click.echo(visible(f"{result.place or name}: warning: {result.text}"))
        else:
            (unfit if NOT_APPLICABLE in result.text else passed).append(line)
            click.echo(visible(f"{name}: {result.check}: {result.text}"))
    if repeated := len(failed) - len(set(failed)):
        click.echo(f"{counted(repeated, 'more check')} failed with a line that is above.")
    click.echo(f"{len(passed)} checks passed, {len(failed)} failed{f', {len(unfit)} do not apply' if unfit else ''}.")
    sys.exit(int(bool(failed)))
