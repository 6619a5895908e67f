"""`harness ui`: MLflow's own interface."""

import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import click

from harness.commands.shared import Refused, out_option, store_uri, uri_option


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@out_option
@uri_option
def ui(port: int, out: Path, tracking_uri: str | None) -> None:
    """Open the MLflow UI for this store, on loopback only."""
    uri = tracking_uri or store_uri(out)
    if uri.startswith("sqlite"):
        uri = _uri_with_moved_files(uri, out)
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Refused(f"--port: expected a free port, got {port}: {error.strerror}. Choose another.") from error
    click.echo(f"MLflow UI: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C stops it)")
    click.echo("There, open the experiment of the grid, its runs and the chart view, and group by estimator.")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    arguments = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])  # noqa: S606 fixed program, no shell


def _uri_with_moved_files(uri: str, out: Path) -> str:
    """Point the runs of a database at files that were moved with it. Return the URI as the server reads it."""
    from harness.tracking import STORE_ERRORS, follow_moved_files
    from reports.contract.sqlite_uri import sqlite_path, unambiguous
    from reports.contract.text import first_line

    uri = unambiguous(uri)
    if (database := sqlite_path(uri)) is not None and not database.is_file():
        raise Refused(f"--tracking-uri: expected an MLflow database, got no file at {database}. Run a grid first.")
    try:
        follow_moved_files(uri, out)
    except STORE_ERRORS as error:  # a read-only database still shows everything else
        click.echo(f"note: files of moved runs may be missing ({first_line(error)})", err=True)
    return uri
