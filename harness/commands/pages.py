"""`harness gradients` and `harness ui`: what a person reads, besides reports."""

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from harness.commands.grid_argument import GridFile
from harness.commands.shared import (
    Refused,
    given_command,
    grid_option,
    make_console,
    no_check_option,
    out_option,
    plugin_option,
    store_uri,
    unwritable,
    uri_option,
)


@click.command()
@grid_option
@click.option("--resamples", type=click.IntRange(min=64), default=1024, show_default=True, help="Draws per estimator.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@plugin_option
@no_check_option
@out_option
def gradients(
    grid_file: GridFile, resamples: int, seed: int, plugins: Sequence[Path], no_check: bool, out: Path
) -> None:
    """Hold the estimators of a grid against the true gradients of small problems, in seconds.

    Bias with its interval, cosine, variance and cost, each estimator at the first temperatures of its schedules. Writes
    gradients.html, gradients.csv, gradients.md and figures/ to gradients/NAME in --out.
    """
    from reports.process_settings import import_matplotlib

    import_matplotlib()
    from harness.gradients import on_toy_problems as toys
    from harness.plugins import quick_check
    from harness.plugins.registry import load_registry
    from reports.page import gradients as pages

    registry = load_registry(plugins)
    grid = grid_file.load(registry, out)
    checked = quick_check.check(grid.runs, registry, skip=no_check)
    for note in checked.notes:
        click.echo(f"note: {note}", err=True)
    console = make_console()
    estimators = toys.estimators(grid, registry)
    sections = []
    for name, toy in toys.TOYS.items():
        with console.status(f"{name}: {len(estimators)} estimators"):
            frame = toys.frame(toy, estimators, resamples, seed)
        sections.append(pages.Section(name, str(frame.attrs["truth"]), frame, toy.meaning))
    notes = {"Draws": f"{resamples} of each estimator", "Seed": str(seed), "Points": toys.POINTS}
    if checked.conformance is not None:
        notes["Conformance of plug-ins"] = checked.conformance
    command = shlex.join(given_command())
    folder = out / "gradients" / grid.name
    try:
        path = pages.write(sections, folder, title=grid.name, command=command, notes=notes)
    except OSError as error:
        raise unwritable(folder, error) from error
    for table in toys.tables({section.title: section.frame for section in sections}):
        console.print(table)
    click.echo(f"page: {path.absolute()}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@out_option
@uri_option
def ui(port: int, out: Path, tracking_uri: str | None) -> None:
    """Open the MLflow UI on this store, on loopback only."""
    uri = tracking_uri or store_uri(out)
    if uri.startswith("sqlite"):
        uri = _with_files(uri, out)
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Refused(f"--port: expected a free port, got {port}: {error.strerror}. Give another.") from error
    click.echo(f"MLflow UI: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C stops it)")
    click.echo("Open the grid's experiment, its runs, the chart view, then: Group by → estimator.")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    arguments = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])  # noqa: S606 fixed program, no shell


def _with_files(uri: str, out: Path) -> str:
    """Return a database's URI as the server reads it, after its runs were pointed at files that were moved with it."""
    from harness.tracking import STORE_ERRORS, first_line, follow_moved_files
    from reports.contract.sqlite_uri import sqlite_path, unambiguous

    uri = unambiguous(uri)
    if (database := sqlite_path(uri)) is not None and not database.is_file():
        raise Refused(f"--tracking-uri: expected an MLflow database, got no file at {database}. Run a grid first.")
    try:
        follow_moved_files(uri, out)
    except STORE_ERRORS as error:  # a database on a disk that cannot be written to shows all but moved files
        click.echo(f"note: files of runs that were moved may not be shown ({first_line(error)})", err=True)
    return uri
