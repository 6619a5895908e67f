"""`harness status`: the state of a sweep, if possible without running code of plug-ins."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.grid_argument import GridFile
from harness.commands.shared import grid_option, json_option, make_console, out_option, plugin_option
from harness.errors import first_line

if TYPE_CHECKING:
    from harness.storage.sweep_state import Sweep


@click.command()
@grid_option
@plugin_option
@out_option
@json_option
@click.option("--tracebacks", is_flag=True, help="Print the traceback of one run of each error.")
def status(grid_file: GridFile, plugins: Sequence[Path], out: Path, as_json: bool, tracebacks: bool) -> None:
    """Show which runs are done, running and failed, which setting is best so far, and what to run next."""
    from harness.grid.load import GridError
    from harness.status.sweep_status import show, sweep_status, to_text
    from harness.storage.sweep_state import read_status

    sweep = read_status(grid_file.path, out, plugins, grid_file.text)
    if sweep is None:
        try:
            sweep = built_sweep(grid_file, out, plugins)
        except GridError as error:
            sweep, plugins = planned_sweep(grid_file, out, plugins, error)
    path = grid_file.stored_path(sweep.folder)
    found = sweep_status(sweep, path if path.exists() else None, out, plugins)
    if as_json:
        click.echo(to_text(found))
    else:
        show(make_console(), found, tracebacks=tracebacks)


def built_sweep(grid_file: GridFile, out: Path, plugins: Sequence[Path]) -> "Sweep":
    """Return a sweep with the grid built from its file. Raises GridError."""
    from harness.execution.forecast import epoch_costs
    from harness.plugins.registry import load_registry
    from harness.storage.sweep_state import read_sweep

    registry = load_registry(plugins)
    grid = grid_file.load(registry, out)
    sweep = read_sweep(grid, out)
    sweep.epoch_costs = epoch_costs(grid.runs, registry)
    return sweep


def planned_sweep(
    grid_file: GridFile, out: Path, plugins: Sequence[Path], error: Exception
) -> "tuple[Sweep, Sequence[Path]]":
    """Return a sweep as it was last run, and its plug-ins, since the grid cannot be built without them or its images.

    Raises `error` if plug-ins were given, or if the text of the grid has changed since.
    """
    from harness.storage.sweep_state import read_last_run

    known = None if plugins else read_last_run(grid_file.path, out, grid_file.text)
    if known is None:
        raise error
    sweep, stored = known
    why = "The plug-in may have changed since: give it with --plugin FILE to check."
    if "--plugin FILE" not in str(error):
        why = f"The grid cannot be read now: {first_line(error)}"
    click.echo(f"note: these are the runs as of {stored.saved_at}. {why}", err=True)
    return sweep, [Path(path) for path in stored.plugins]
