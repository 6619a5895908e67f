"""A connection to a store: checked, so that what is wrong is said within seconds and in one line."""

from pathlib import Path

from mlflow.tracking import MlflowClient

from harness.environment import variable
from harness.tracking.databases import check_server_database, create_sqlite, is_database, with_timeout
from harness.tracking.errors import STORE_ERRORS, StoreUnavailableError, TrackingError, advice, check_server, is_outage
from reports.contract.sqlite_uri import DATABASE, sqlite_uri
from reports.contract.text import first_line, without_passwords


def default_uri(out: Path) -> str:
    """Return the tracking URI that is used when none is given: $MLFLOW_TRACKING_URI, else SQLite in `out`."""
    return variable("MLFLOW_TRACKING_URI") or sqlite_uri(out / DATABASE)


def connect(uri: str, out: Path) -> MlflowClient:
    """Open (or create) the store.

    Raises StoreUnavailableError if it does not answer now, TrackingError if it is none.
    """
    check_server(uri)
    if is_database(uri):
        _check_is_utf8(out.absolute())
    try:
        create_sqlite(uri)
        check_server_database(uri)
        client = MlflowClient(tracking_uri=with_timeout(uri))
        client.search_experiments(max_results=1)
    except ImportError as error:
        raise TrackingError(
            f"tracking: expected the driver of the database at {without_passwords(uri)}, got: {error}. Install it; "
            "for PostgreSQL: pip install 'argmax-harness[postgres]', and postgresql+psycopg2://… as the URI."
        ) from error
    except STORE_ERRORS as error:
        kind = StoreUnavailableError if is_outage(uri, error) else TrackingError
        raise kind(
            f"tracking: expected an MLflow store at {without_passwords(uri)}, got: {first_line(error)}. "
            f"{advice(error)}, or give another --tracking-uri."
        ) from error
    return client


def _check_is_utf8(out: Path) -> None:
    """Raise TrackingError for a folder that no URI of MLflow can name: URIs are UTF-8, folders need not be."""
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise TrackingError(
            f"--out: expected a folder whose name is UTF-8, got {str(out)!a}. Rename it, or give another --out."
        ) from None
