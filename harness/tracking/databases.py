"""Databases before MLflow opens them: a SQLite file is created atomically, a server is tried once."""

import os
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import create_engine, make_url

from harness.tracking.errors import DATABASES
from reports.contract.sqlite_uri import sqlite_path, sqlite_uri

CONNECT_S = 10
"""A database server that has not accepted a connection for this long is down."""
_DRIVERS_WITH_TIMEOUT = ("psycopg2", "psycopg", "mysqldb", "pymysql")


def is_database(uri: str) -> bool:
    """Return whether this process itself opens the database of a URI."""
    return uri.startswith(("sqlite", *DATABASES))


def with_timeout(uri: str) -> str:
    """Return the URI of a database server with a limit for connecting, unless it has one or is another URI."""
    url = make_url(uri) if uri.startswith(DATABASES) else None
    if url is None or "connect_timeout" in url.query or url.get_driver_name() not in _DRIVERS_WITH_TIMEOUT:
        return uri
    return url.update_query_dict({"connect_timeout": str(CONNECT_S)}).render_as_string(hide_password=False)


def check_server_database(uri: str) -> None:
    """Connect once to the server of such a URI: MLflow would try ten times, for 101 s.

    Raises SQLAlchemyError.
    """
    if uri.startswith(DATABASES):
        engine = create_engine(with_timeout(uri))
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def create_sqlite(uri: str) -> None:
    """Create the database of a SQLite URI if there is no such file yet: whole, or not at all.

    MLflow creates it by 68 migrations, which take seconds. A kill during them would break the file for good. So they
    run in a temporary folder, whose name MLflow can read, and the finished file is moved into place. Raises what is in
    STORE_ERRORS.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="harness-") as folder:
        made = Path(folder, "mlflow.db")
        _migrate(made, path.parent / "mlruns")
        _move_into_place(made.read_bytes(), path)


def _migrate(database: Path, artifacts: Path) -> None:
    """Create a database.

    `artifacts` is the folder of MLflow's own experiment "Default", which no sweep uses.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made: Any = SqlAlchemyStore  # untyped
    made(sqlite_uri(database), artifacts.as_uri()).engine.dispose()


def _move_into_place(content: bytes, path: Path) -> None:
    """Write the file of a database, unless another process has created it meanwhile."""
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
