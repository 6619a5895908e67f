"""What goes wrong with a store: which exceptions are its own, which are an outage, and what the user reads of them."""

import socket
from urllib.parse import urlsplit

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from harness.provenance import without_passwords

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""What a store raises that stops answering: its own exception, or one of the network, the disk or the database."""

ANSWER_S = 10.0
"""A server that has not answered a simple question for so long is down."""

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}

HALF_MADE = ("already exists", "duplicate column", "no such table", "no such column")
"""What SQLite says where MLflow was killed while it made or migrated the database."""


class TrackingError(Exception):
    """The store cannot be used; the message is one line."""


class Down(OSError):  # noqa: N818 what the store is
    """The store may well be one, but does not answer now; the message is one line."""


def check_server(uri: str) -> None:
    """Raise Down within seconds, not minutes, where nothing listens at the address or a web server does not answer."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in PORTS or not parts.hostname:
        return
    what = "server" if scheme in ("http", "https") else "store"
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), timeout=ANSWER_S / 2).close()
        if what == "server":
            _check_answer(uri)
    except OSError as error:
        raise Down(
            f"tracking: expected an MLflow {what} at {without_passwords(uri)}, got: {error}. "
            "Start it, or give another --tracking-uri."
        ) from error


def _check_answer(uri: str) -> None:
    """Raise OSError where a web server gives no answer at all. What it answers is not this function's business."""
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_S, allow_redirects=False).close()
    except requests.exceptions.SSLError:
        return
    except requests.exceptions.Timeout as error:
        raise OSError(f"no answer within {ANSWER_S:.0f} s") from error
    except requests.exceptions.ConnectionError as error:
        raise OSError("a connection that ended without an answer") from error


def is_outage(uri: str, error: BaseException) -> bool:
    """Return whether a store that failed may be there another time: a server without an answer, a locked database."""
    if urlsplit(uri).scheme in ("http", "https"):
        return True
    causes = (error, error.__cause__, error.__context__)
    for_good = ("unable to open database file", *HALF_MADE)
    return any(isinstance(e, OperationalError) for e in causes) and not any(text in str(error) for text in for_good)


def advice(error: BaseException) -> str:
    """Return what to do about a store that cannot be opened, as the beginning of a sentence."""
    if any(text in str(error) for text in HALF_MADE):
        return "The database was left half made: move its file away and let `harness sync` fill a new one"
    return "Start it"


def in_one_line(error: BaseException) -> str:
    """Return what a store raised as one line for the user."""
    line = first_line(error)
    return line if isinstance(error, Down) else f"tracking: expected the store to answer, got: {line}."


def first_line(error: BaseException) -> str:
    """Return the first line of what a store raised, in the words of the database itself where it was one."""
    cause = error.__cause__ if isinstance(error, MlflowException) else error
    if isinstance(cause, DBAPIError) and cause.orig is not None:
        error = cause.orig
    return (str(error).splitlines() or [type(error).__name__])[0]
