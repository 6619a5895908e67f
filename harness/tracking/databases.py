"""Databases, before MLflow opens them: a SQLite file that is made whole or not at all, a server that lets one in."""

import os
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import create_engine, make_url

from reports.contract.sqlite_uri import sqlite_path, sqlite_uri

CONNECT_S = 10
"""A database server that has not let one in for so long is down."""
_SERVERS = ("postgresql", "mysql", "mssql")
_TAKE_A_LIMIT = ("psycopg2", "psycopg", "mysqldb", "pymysql")  # drivers


def is_database(uri: str) -> bool:
    """Return whether a URI is that of a database which this process opens itself."""
    return uri.startswith(("sqlite", *_SERVERS))


def with_limit(uri: str) -> str:
    """Return the URI of a database server with a limit of the time that a connection may take, unless it has one."""
    url = make_url(uri) if uri.startswith(_SERVERS) else None
    if url is None or "connect_timeout" in url.query or url.get_driver_name() not in _TAKE_A_LIMIT:
        return uri
    return url.update_query_dict({"connect_timeout": str(CONNECT_S)}).render_as_string(hide_password=False)


def try_server(uri: str) -> None:
    """Connect once to the server of such a URI: MLflow would try ten times, for 101 s. Raises SQLAlchemyError."""
    if uri.startswith(_SERVERS):
        engine = create_engine(with_limit(uri))
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def make_sqlite(uri: str) -> None:
    """Make the database of a SQLite URI where there is no such file yet: whole, or not at all.

    MLflow makes it by 68 migrations, which take seconds. A kill in the middle of them would break the file for good.
    So they run in a temporary folder, whose name MLflow can read, and the file is put into its place when it is ready.
    Raises what is in STORE_ERRORS.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="harness-") as folder:
        made = Path(folder, "mlflow.db")
        _migrate(made, path.parent / "mlruns")
        _put(made.read_bytes(), path)


def _migrate(database: Path, artifacts: Path) -> None:
    """Make a database; `artifacts` is where MLflow's own experiment "Default", which no sweep uses, has its files."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made: Any = SqlAlchemyStore  # it has no types
    made(sqlite_uri(database), artifacts.as_uri()).engine.dispose()


def _put(content: bytes, path: Path) -> None:
    """Make the file of a database with this content, unless another process has made one meanwhile."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
