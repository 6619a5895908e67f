"""Events → MLflow. The only package that imports mlflow, and the only writer of its store.

Every metric is logged with the time of its event, so that replaying a journal stores nothing twice. A store that stops
answering does not stop the sweep: the journal has everything, and `harness sync` replays it.
"""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


from harness.tracking.errors import STORE_ERRORS, Down, TrackingError, first_line, in_one_line
from harness.tracking.tracker import Tracker, default_uri

__all__ = ["STORE_ERRORS", "Down", "Tracker", "TrackingError", "default_uri", "first_line", "in_one_line"]

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints the traceback of what it raises
