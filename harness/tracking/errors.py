"""Errors of a store: which exceptions are its own, which are an outage, and what the user reads of them."""

import re
from urllib.parse import urlsplit

from google.protobuf.json_format import Error as ProtobufError
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from harness.errors import UserError
from reports.contract.text import first_line, without_passwords
from reports.contract.web_server import WEB_SCHEMES, ask_server, invalid_address

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError, ProtobufError)
"""What a store raises that stops answering: MLflow's exception, one of the network, the disk or the database, or one of
protobuf if the answer of a server is not MLflow's."""

DATABASES = ("postgresql", "mysql", "mssql")

HALF_MIGRATED = ("already exists", "duplicate column", "no such table", "no such column")
"""What SQLite says if MLflow was killed while it created or migrated the database."""

ACCESS_DENIED = (
    *("password authentication failed", "no password supplied", "no pg_hba.conf entry", " does not exist"),
    *("Access denied for user", "Unknown database"),
)
"""What PostgreSQL and MySQL say of an unknown user or database. libpq hides the SQLSTATE."""


class TrackingError(UserError):
    """A store that cannot be used."""


class StoreUnavailableError(OSError):
    """A store that does not answer now. The message is one line."""


def check_server(uri: str) -> None:
    """Raise StoreUnavailableError within seconds, not minutes, if a web server does not answer.

    Raises TrackingError for a URI without an address. A database server is tried by its own driver
    (`harness.tracking.databases`).
    """
    if scheme_of(uri) not in WEB_SCHEMES:
        return
    try:
        ask_server(uri)
    except OSError as error:
        raise StoreUnavailableError(
            f"tracking: expected an MLflow server at {without_passwords(uri)}, got: {first_line(error)}. "
            "Start it, or give another --tracking-uri."
        ) from error


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, without its driver. Raises TrackingError if it is no address."""
    if re.match(r"[\w.-]+:\d+(/|$)", uri) or uri.startswith("htp"):
        raise TrackingError(
            f"tracking: expected http://, https://, sqlite:/// or postgresql://, got {without_passwords(uri)!r}. "
            f"Give another --tracking-uri, such as http://{without_passwords(uri).partition('://')[2] or uri}."
        )
    try:
        scheme = urlsplit(uri).scheme.partition("+")[0]
        if scheme in WEB_SCHEMES:
            urlsplit(uri).port  # noqa: B018 it raises ValueError
        elif scheme in DATABASES:
            make_url(uri)  # it takes a slash in a password
    except (ValueError, ArgumentError):
        raise TrackingError(f"tracking: {invalid_address(uri)}") from None
    return scheme


def is_outage(uri: str, error: BaseException) -> bool:
    """Return whether a store that cannot be opened may work later: it does not answer, or its database is locked."""
    if urlsplit(uri).scheme in ("http", "https"):
        return not _is_refusal(error)
    causes = (error, error.__cause__, error.__context__)
    permanent = ("unable to open database file", *HALF_MIGRATED, *ACCESS_DENIED)
    return any(isinstance(e, OperationalError) for e in causes) and not any(text in str(error) for text in permanent)


def _is_refusal(error: BaseException) -> bool:
    """Return whether a web server denies access, knows nothing of MLflow, or redirects."""
    stated = isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403, 404)  # type: ignore[no-untyped-call]
    return stated or re.search(r"failed with error code (3\d\d|401|403|404) ", str(error)) is not None


def advice(error: BaseException) -> str:
    """Return what to do about a store that cannot be opened, as the beginning of a sentence."""
    if any(text in str(error) for text in HALF_MIGRATED):
        return "The database was left incomplete: move its file away and let `harness sync` fill a new one"
    if any(text in str(error) for text in ACCESS_DENIED) or _is_refusal(error):
        return "Check name, password and path"
    return "Start it"


def in_one_line(error: BaseException) -> str:
    """Return what a store raised as one line for the user."""
    line = first_line(error)
    return line if isinstance(error, StoreUnavailableError) else f"tracking: expected the store to answer, got: {line}."
