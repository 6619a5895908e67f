"""Databases, before MLflow opens them: a SQLite file that is made whole or not at all, a server that lets one in."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import create_engine, make_url

CONNECT_S = 10
"""A database server that has not let one in for so long is down."""
_SERVERS = ("postgresql", "mysql")
_TAKE_A_LIMIT = ("psycopg2", "psycopg", "mysqldb", "pymysql")  # drivers


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

    MLflow makes it by 68 migrations, seconds long. One that is killed in the middle of them is broken for good: so they
    happen in a folder beside it, which such a kill leaves behind. Raises what is in STORE_ERRORS.
    """
    url = make_url(uri) if uri.startswith("sqlite:///") else None
    if url is None or not url.database or url.database.startswith((":", "file:")):
        return
    path = Path(url.database)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}-", suffix=".partial", dir=path.parent) as folder:
        made = Path(folder, path.name)
        _migrate(url.set(database=str(made)).render_as_string(hide_password=False))
        _put(made, path)


def _migrate(uri: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made: Any = SqlAlchemyStore  # it has no types
    made(uri, "./mlruns").engine.dispose()  # MLflow's own default folder, which no sweep uses


def _put(made: Path, path: Path) -> None:
    """Move the file to its place, unless another process has put one there meanwhile."""
    try:
        os.link(made, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(made, path)
