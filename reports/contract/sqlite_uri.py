"""Paths of SQLite databases as the URIs that MLflow takes, and back: the only place that knows the rules.

SQLAlchemy opens what such a URI says when it is unquoted up to the first "?". MLflow makes the folder that the URI
says when nothing is unquoted. Both must mean the same file, or a folder full of percent signs appears. They do where
the path has neither "%" nor "?", and where the URI has no slash at all: SQLAlchemy unquotes %2F, and to MLflow the
whole path is then the name of a file in the current folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

DATABASE = "mlflow.db"
"""The database of a results folder."""
_SQLITE = re.compile(r"sqlite(\+\w+)?:///")


def sqlite_uri(path: Path | str) -> str:
    """Return the URI of a database file, which need not exist. A relative path is taken from the current folder."""
    climbs = ".." in Path(path).parts  # out of a linked folder: SQLAlchemy, which works on the text, ends elsewhere
    location = os.path.realpath(path) if climbs else os.path.abspath(path)
    if "%" in location or "?" in location:
        location = location.replace("%", "%25").replace("?", "%3F").replace("/", "%2F")
    return f"sqlite:///{location}"


def sqlite_path(uri: str) -> Path | None:
    """Return the database file that a URI names, as an absolute path; None where it names none.

    A database in memory and SQLite's own `file:` URIs are no such files.
    """
    match = _SQLITE.match(uri)
    if match is None:
        return None
    location = unquote(uri[match.end() :].partition("?")[0])
    if not location or location.startswith((":memory:", "file:")):
        return None
    return Path(os.path.abspath(location))


def unambiguous(uri: str) -> str:
    """Return the URI in the form that SQLAlchemy and MLflow read alike; any other URI as it is."""
    path = sqlite_path(uri)
    if path is None:
        return uri
    scheme, query = uri.partition(":///")[0], uri.partition("?")[2]
    return f"{scheme}{sqlite_uri(path).removeprefix('sqlite')}{'?' if query else ''}{query}"
