"""What goes wrong with a store: which exceptions are its own, which are an outage, and what the user reads of them."""

import re
from urllib.parse import urlsplit

from google.protobuf.json_format import Error as ProtobufError
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from harness.errors import UserError
from reports.contract.text import first_line, without_passwords
from reports.contract.web_server import WEB, ask_server

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError, ProtobufError)
"""What a store raises that stops answering: its own exception, or one of the network, the disk or the database; or of
protobuf, where a server's answer is not MLflow's."""

DATABASES = ("postgresql", "mysql", "mssql")

HALF_MADE = ("already exists", "duplicate column", "no such table", "no such column")
"""What SQLite says where MLflow was killed while it made or migrated the database."""

NOT_LET_IN = (
    *("password authentication failed", "no password supplied", "no pg_hba.conf entry", " does not exist"),
    *("Access denied for user", "Unknown database"),
)
"""What PostgreSQL and MySQL say to whom they do not know, or of a database that is none; libpq hides the SQLSTATE."""


class TrackingError(UserError):
    """The store cannot be used."""


class Down(OSError):  # noqa: N818 what the store is
    """The store may well be one, but does not answer now; the message is one line."""


def check_server(uri: str) -> None:
    """Raise Down within seconds, not minutes, where a web server does not answer. Raises TrackingError for no address.

    A database server is tried by its own driver (`harness.tracking.databases`).
    """
    if address(uri) not in WEB:
        return
    try:
        ask_server(uri)
    except OSError as error:
        raise Down(
            f"tracking: expected an MLflow server at {without_passwords(uri)}, got: {first_line(error)}. "
            "Start it, or give another --tracking-uri."
        ) from error


def address(uri: str) -> str:
    """Return the scheme of a URI, without its driver. Raises TrackingError where it is no address."""
    if re.match(r"[\w.-]+:\d+(/|$)", uri) or uri.startswith("htp"):
        raise TrackingError(
            f"tracking: expected http://, https://, sqlite:/// or postgresql://, got {without_passwords(uri)!r}. "
            f"Give another --tracking-uri, such as http://{without_passwords(uri).partition('://')[2] or uri}."
        )
    try:
        scheme = urlsplit(uri).scheme.partition("+")[0]
        if scheme in WEB:
            urlsplit(uri).port  # noqa: B018 it raises ValueError
        elif scheme in DATABASES:
            make_url(uri)  # it takes a slash in a password
    except (ValueError, ArgumentError):  # whose text may have a part of the password
        raise TrackingError(
            f"tracking: expected scheme://host:port, with a port up to 65535, got {without_passwords(uri)!r}. "
            "Give another --tracking-uri; in a password, / is %2F, # is %23, ? is %3F and @ is %40."
        ) from None
    return scheme


def is_outage(uri: str, error: BaseException) -> bool:
    """Return whether a store that cannot be opened may be there another time: no answer, a locked database."""
    if urlsplit(uri).scheme in ("http", "https"):
        return not _is_refusal(error)
    causes = (error, error.__cause__, error.__context__)
    for_good = ("unable to open database file", *HALF_MADE, *NOT_LET_IN)
    return any(isinstance(e, OperationalError) for e in causes) and not any(text in str(error) for text in for_good)


def _is_refusal(error: BaseException) -> bool:
    """Return whether a web server knows nobody of this name, or nothing of MLflow, or sends one elsewhere."""
    stated = isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403, 404)  # type: ignore[no-untyped-call]
    return stated or re.search(r"failed with error code (3\d\d|401|403|404) ", str(error)) is not None


def advice(error: BaseException) -> str:
    """Return what to do about a store that cannot be opened, as the beginning of a sentence."""
    if any(text in str(error) for text in HALF_MADE):
        return "The database was left half made: move its file away and let `harness sync` fill a new one"
    if any(text in str(error) for text in NOT_LET_IN) or _is_refusal(error):
        return "Check name, password and path"
    return "Start it"


def in_one_line(error: BaseException) -> str:
    """Return what a store raised as one line for the user."""
    line = first_line(error)
    return line if isinstance(error, Down) else f"tracking: expected the store to answer, got: {line}."
