"""Events → MLflow. The only package that imports mlflow, and the only writer of its store.

Every metric is logged with the time of its event, so that a replay of the journal stores nothing twice. A store that
stops answering does not stop the sweep: the journal has everything, and `harness sync` replays it.
"""

import logging

from reports.contract import mlflow_environment

mlflow_environment.prepare()

from harness.tracking.attached_report import attach  # noqa: E402
from harness.tracking.connection import default_uri  # noqa: E402
from harness.tracking.errors import STORE_ERRORS, StoreUnavailableError, TrackingError, in_one_line  # noqa: E402 see above
from harness.tracking.moved_results import follow_moved_files  # noqa: E402
from harness.tracking.refusals import hint  # noqa: E402
from harness.tracking.tracker import Tracker  # noqa: E402

__all__ = [
    "STORE_ERRORS",
    "StoreUnavailableError",
    "Tracker",
    "TrackingError",
    "attach",
    "default_uri",
    "follow_moved_files",
    "hint",
    "in_one_line",
]

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints tracebacks of what it raises
