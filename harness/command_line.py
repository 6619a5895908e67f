"""What the commands share: options, errors of the user, and where things are.

Nothing heavy is imported here or at the top of a command's file: `harness --help` takes a blink.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reports.visible import visible_lines

if TYPE_CHECKING:
    from harness.grid import Grid

REFUSED = 2

DEFAULT_OUT = "$HARNESS_OUT or ./results"


def default_out() -> Path:
    """Return where results go unless the user says otherwise."""
    return Path(os.environ.get("HARNESS_OUT", "results"))


out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
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
    type=click.Path(path_type=Path),
    help="A Python file with estimators of your own. May be given several times.",
)
grid_option = click.option(
    "--grid", "grid_path", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The grid, a YAML file."
)


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document instead (docs/json.md); lines for people on stderr.",
)


class Refused(click.ClickException):
    """Input that cannot be used: one line on stderr, exit code 2."""

    exit_code = REFUSED

    def show(self, file: Any = None) -> None:
        click.echo(visible_lines(self.message), err=True)


def unwritable(folder: Path, error: OSError) -> Refused:
    """Return the refusal of a folder that cannot be written to."""
    return Refused(f"{folder}: expected a folder to write to, got: {error.strerror}. Choose another --out.")


def load(path: Path, registry: Any) -> "Grid":
    """Read a grid file. Raises GridError."""
    from harness.grid import load_grid

    return load_grid(path, registry)


def store_uri(out: Path) -> str:
    """Return the URI of an existing store. Raises Refused where there is none."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    database = out.absolute() / "mlflow.db"
    if not database.exists():
        raise Refused(
            f"{database}: expected an MLflow store, got none. "
            "Run a grid first, or give its --out folder or --tracking-uri."
        )
    return f"sqlite:///{database}"


def make_console(*, stderr: bool = False) -> Any:
    """Return rich's console for standard output or error. It moves the cursor on a terminal only."""
    from rich.console import Console

    from harness.terminal import asked_size, has_colours, is_moving

    stream = sys.stderr if stderr else sys.stdout
    colours: Any = "standard" if has_colours(stream) else "auto"
    return Console(
        stderr=stderr,
        width=asked_size("COLUMNS", 80),
        height=asked_size("LINES", 25),
        force_terminal=is_moving(stream),
        color_system=colours,
    )
