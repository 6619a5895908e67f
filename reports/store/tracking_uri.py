"""Tracking URIs, checked before MLflow opens them: MLflow would retry for minutes, or make a new store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from reports.contract.errors import ReportError
from reports.contract.sqlite_uri import DATABASE, sqlite_path, sqlite_uri, unambiguous
from reports.contract.text import first_line, without_passwords
from reports.contract.web_server import WEB_SCHEMES, ask_server, invalid_address

LONGEST_REASON = 200
"""How many characters of a store's message an error repeats."""


def checked_uri(tracking_uri: str) -> str:
    """Return the URI of an existing store, in the form to open it by. Raises ReportError, within seconds."""
    shown = without_passwords(tracking_uri)
    try:
        parts = urlsplit(tracking_uri)
        if parts.scheme in WEB_SCHEMES:
            parts.port  # noqa: B018 it raises ValueError
    except ValueError:
        raise ReportError(f"tracking URI: {invalid_address(tracking_uri)}") from None
    if parts.scheme in WEB_SCHEMES:
        try:
            ask_server(tracking_uri)
        except OSError as error:
            raise ReportError(
                f"tracking URI: expected a tracking server that answers, got '{shown}' "
                f"({first_line(error, LONGEST_REASON)}). Start it, or give --tracking-uri."
            ) from error
    elif not parts.scheme and (path := _database_at(Path(tracking_uri))) is not None:
        return checked_uri(sqlite_uri(path))
    elif (database := sqlite_path(tracking_uri)) is not None:
        _check_sqlite(database)
    return unambiguous(tracking_uri)


def _database_at(path: Path) -> Path | None:
    """Return the database that a path means: the file, or that of a results folder. None for MLflow's file store.

    Raises ReportError for another folder.
    """
    if not path.is_dir():
        return path
    if (path / DATABASE).is_file():
        return path / DATABASE
    if any(path.glob("*/meta.yaml")):
        return None
    raise ReportError(
        f"tracking URI: expected a results folder, got '{path}' without {DATABASE}. Run a grid first, or give the "
        "folder that `harness run --out` wrote to."
    )


def _check_sqlite(path: Path) -> None:
    if not path.is_file():
        raise ReportError(
            f"tracking URI: expected a database, got no file at '{path}'. Run a grid first, or give --tracking-uri."
        )
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise ReportError(
            f"tracking URI: expected an MLflow database, got '{path}' ({error}). Give another --tracking-uri."
        ) from error
    if "experiments" not in tables:
        raise ReportError(
            f"tracking URI: expected an MLflow database, got '{path}' without experiments. Give another --tracking-uri."
        )
