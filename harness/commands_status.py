"""`harness status`: what is known of a grid, where that can be without running any code of a plug-in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.command_line import grid_option, json_option, load, make_console, out_option, plugin_option

if TYPE_CHECKING:
    from harness.sweep import Sweep


@click.command()
@grid_option
@plugin_option
@out_option
@json_option
@click.option("--tracebacks", is_flag=True, help="Print the traceback of one run of each error.")
def status(grid_path: Path, plugins: Sequence[Path], out: Path, as_json: bool, tracebacks: bool) -> None:
    """Say what is done, running and failed of a grid, which setting is best so far, and what comes next."""
    from harness import status
    from harness.grid import GridError
    from harness.plugins import load_registry
    from harness.sweep import read_status, read_sweep

    sweep = read_status(grid_path, out, plugins)
    if sweep is None:
        try:
            sweep = read_sweep(load(grid_path, load_registry(plugins), out), out)
        except GridError as error:
            sweep, plugins = as_planned(grid_path, out, plugins, error)
    found = status.look(sweep, grid_path, out, plugins)
    if as_json:
        click.echo(status.to_text(found))
    else:
        status.show(make_console(), found, tracebacks=tracebacks)


def as_planned(grid_path: Path, out: Path, plugins: Sequence[Path], error: Exception) -> "tuple[Sweep, Sequence[Path]]":
    """Return a sweep as it was last run, and its plug-ins, where the grid cannot be built without them.

    Raises the error that building it gave, where plug-ins were named or the text is another since.
    """
    from harness.sweep import read_planned

    known = None if plugins else read_planned(grid_path, out)
    if known is None:
        raise error
    sweep, stored = known
    click.echo(
        f"note: these are the runs as of {stored.since}. Whether the plug-in changed since is not known: name it with"
        " --plugin FILE.",
        err=True,
    )
    return sweep, [Path(path) for path in stored.plugins]
