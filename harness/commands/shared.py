"""What the commands share: options, errors of the user, and where things are.

Nothing heavy is imported here or at the top of a command's file, so that `harness --help` is fast.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import click

from harness.commands.grid_argument import GridFile, is_pipe, open_grid
from harness.environment import expanded, path_variable, variable
from reports.contract.sqlite_uri import DATABASE, sqlite_uri
from reports.contract.text import visible_lines

REFUSED = 2

DEFAULT_OUT = "$HARNESS_OUT or ./results"


def default_out() -> Path:
    """Return the default folder for results."""
    return path_variable("HARNESS_OUT") or Path("results")


@final
class PathType(click.Path):
    """A path with `~` expanded, also where no shell has done it: in a variable, or after `=`."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("expected a path, got an empty text.", param, ctx)
        return super().convert(expanded(str(value)), param, ctx)


FILE, FOLDER = PathType(), PathType(file_okay=False)


def _one_grid(context: click.Context, option: click.Parameter, given: Sequence[str]) -> GridFile:
    if len(given) > 1:
        raise Refused(f"--grid: expected one grid, got {len(given)}. Use a separate command for each.")
    if not given[0]:
        raise Refused("--grid: expected a file, got an empty text.")
    return open_grid(given[0], expanded(given[0]))


def _refuse_pipes(context: click.Context, option: click.Parameter, given: Sequence[Path]) -> Sequence[Path]:
    for path in given:
        if is_pipe(path):
            raise Refused(
                f"--plugin: expected a file, got the pipe or device {path}. Save it to a file: every worker reads it."
            )
    return given


out_option = click.option(
    "--out",
    type=FOLDER,
    default=default_out,
    show_default=DEFAULT_OUT,
    help="Folder for journals, the MLflow store and reports.",
)
uri_option = click.option(
    "--tracking-uri", metavar="URI", help="MLflow store. Default: $MLFLOW_TRACKING_URI, else SQLite in --out."
)
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    type=FILE,
    callback=_refuse_pipes,
    help="A Python file with your own estimators, tasks or images. Can be given several times.",
)
no_check_option = click.option(
    "--no-check",
    is_flag=True,
    help="Run your own classes without checking them first. The report says so.",
)
grid_option = click.option(
    "--grid",
    "grid_file",
    multiple=True,
    required=True,
    metavar="FILE",
    callback=_one_grid,
    help="The grid, a YAML file; - is standard input.",
)


def given_command() -> list[str]:
    """Return the words of the current command: the arguments of `main`, which may differ from sys.argv."""
    return ["harness", *(click.get_current_context().find_root().obj or sys.argv[1:])]


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document (docs/json.md). Lines for people go to stderr.",
)


class Refused(click.ClickException):
    """An error in the input: one line on stderr, exit code 2."""

    exit_code = REFUSED

    def show(self, file: Any = None) -> None:
        click.echo(visible_lines(self.message), err=True)


def unwritable(folder: Path, error: OSError) -> Refused:
    """Return the error for a folder that cannot be written to."""
    return Refused(f"{folder}: expected a folder to write to, got: {error.strerror}. Choose another --out.")


def store_uri(out: Path, option: str = "--out") -> str:
    """Return the URI of an existing store. Raises Refused if there is none."""
    if uri := variable("MLFLOW_TRACKING_URI"):
        return uri
    database = out.absolute() / DATABASE
    if not database.exists():
        raise Refused(
            f"{database}: expected an MLflow store, got none. "
            f"Run a grid first, or give the folder of its results ({option}) or --tracking-uri."
        )
    return sqlite_uri(database)


def make_console(*, stderr: bool = False) -> Any:
    """Return a rich console for standard output or error. It moves the cursor only on a terminal."""
    from rich.console import Console

    from harness.terminal import can_move_cursor, size_from_environment, wants_colours

    stream = sys.stderr if stderr else sys.stdout
    colours: Any = "standard" if wants_colours(stream) else "auto"
    return Console(
        stderr=stderr,
        width=size_from_environment("COLUMNS", 80),
        height=size_from_environment("LINES", 25),
        force_terminal=can_move_cursor(stream),
        color_system=colours,
    )
