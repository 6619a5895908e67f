"""`harness status`: what is known of a grid, where that can be without running any code of a plug-in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.grid_argument import GridFile
from harness.commands.shared import grid_option, json_option, make_console, out_option, plugin_option

if TYPE_CHECKING:
    from harness.storage.sweep_state import Sweep


@click.command()
@grid_option
@plugin_option
@out_option
@json_option
@click.option("--tracebacks", is_flag=True, help="Print the traceback of one run of each error.")
def status(grid_file: GridFile, plugins: Sequence[Path], out: Path, as_json: bool, tracebacks: bool) -> None:
    """Say what is done, running and failed of a grid, which setting is best so far, and what comes next."""
    from harness.grid.load import GridError
    from harness.status.look import look, show, to_text
    from harness.storage.sweep_state import read_status

    sweep = read_status(grid_file.path, out, plugins, grid_file.text)
    if sweep is None:
        try:
            sweep = as_built(grid_file, out, plugins)
        except GridError as error:
            sweep, plugins = as_planned(grid_file, out, plugins, error)
    lasting = grid_file.lasting(sweep.folder)
    found = look(sweep, lasting if lasting.exists() else None, out, plugins)
    if as_json:
        click.echo(to_text(found))
    else:
        show(make_console(), found, tracebacks=tracebacks)


def as_built(grid_file: GridFile, out: Path, plugins: Sequence[Path]) -> "Sweep":
    """Return a sweep whose grid is built anew. Raises GridError."""
    from harness.execution.forecast import epoch_costs
    from harness.plugins.registry import load_registry
    from harness.storage.sweep_state import read_sweep

    registry = load_registry(plugins)
    grid = grid_file.load(registry, out)
    sweep = read_sweep(grid, out)
    sweep.epoch_costs = epoch_costs(grid.runs, registry)
    return sweep


def as_planned(
    grid_file: GridFile, out: Path, plugins: Sequence[Path], error: Exception
) -> "tuple[Sweep, Sequence[Path]]":
    """Return a sweep as it was last run, and its plug-ins, where the grid cannot be built without them.

    Raises the error that building it gave, where plug-ins were named or the text is another since.
    """
    from harness.storage.sweep_state import read_last_run

    known = None if plugins else read_last_run(grid_file.path, out, grid_file.text)
    if known is None:
        raise error
    sweep, stored = known
    click.echo(
        f"note: these are the runs as of {stored.saved_at}. Whether the plug-in changed since is not known: name it with"
        " --plugin FILE.",
        err=True,
    )
    return sweep, [Path(path) for path in stored.plugins]
