"""`harness sync` and `harness repair`: commands on the journal of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.grid_argument import GridFile
from harness.commands.shared import Refused, grid_option, out_option, plugin_option, uri_option

if TYPE_CHECKING:
    from harness.storage.journal import Journal


@click.command()
@grid_option
@plugin_option
@out_option
def repair(grid_file: GridFile, plugins: Sequence[Path], out: Path) -> None:
    """Remove the damaged lines from a sweep's journal. Their work is repeated; the damaged file is kept."""
    from harness.plugins.registry import load_registry
    from harness.storage.lease import Lease
    from harness.storage.repair import repair

    folder = grid_file.sweep_folder(out)  # needs no plug-in
    name = folder.name if folder is not None else grid_file.load(load_registry(plugins), out).name
    journal = existing_journal(out, name)
    with Lease(journal.folder):
        done = repair(journal.folder)
    if done.kept_as is None:
        click.echo(f"{journal.path}: nothing is damaged.")
        return
    click.echo(f"{name}: removed {done.n_lines} damaged lines and {done.n_runs} runs that are now incomplete.")
    click.echo(f"The damaged journal is kept as {done.kept_as}. Run the sweep again to continue.")


def existing_journal(out: Path, name: str) -> "Journal":
    """Return the journal of a sweep. Raises Refused if there is none."""
    from harness.storage.journal import Journal

    journal = Journal(out / name)
    if not journal.path.exists():
        raise Refused(
            f"{journal.path}: expected the journal of a sweep, got none. Run the grid first, or give its --out."
        )
    return journal


@click.command()
@grid_option
@plugin_option
@out_option
@uri_option
def sync(grid_file: GridFile, plugins: Sequence[Path], out: Path, tracking_uri: str | None) -> None:
    """Replay the journal of a grid into MLflow. Nothing is stored twice. The grid must not be running."""
    from harness import tracking
    from harness.plugins.registry import load_registry
    from harness.storage.lease import Lease
    from harness.storage.sweep_state import read_sweep
    from harness.sweep.replay import sync_store
    from reports.contract.text import without_passwords

    grid = grid_file.load(load_registry(plugins), out)
    uri = tracking_uri or tracking.default_uri(out)
    journal = existing_journal(out, grid.name)
    with Lease(journal.folder):
        sweep = read_sweep(grid, out)
        try:
            tracker = tracking.Tracker(uri, out=out.absolute())
            replayed = sync_store(tracker, sweep)
        except tracking.STORE_ERRORS as error:
            raise Refused(f"{tracking.in_one_line(error)} {tracking.hint(error)}") from error
    for line in tracker.refusals.new_lines():
        click.echo(line)
    ended = [run for run in grid.runs if run.key in sweep.ends]
    present, removed = len(ended) - replayed, len(sweep.ends) - len(ended)
    click.echo(f"{grid.name}: {replayed} runs replayed into {without_passwords(uri)}, {present} were there already.")
    if removed:
        click.echo(f"skipped {removed} runs that are no longer in the grid.")
