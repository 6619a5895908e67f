"""Events → MLflow. The only module that imports mlflow, and the only writer of its store.

Every metric is logged with the time of its event, so that replaying a journal stores nothing twice. A store that stops
answering does not stop the sweep: the journal has everything, and `harness sync` replays it.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import logging

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from harness.config import RunConfig
from harness.events import TERMINAL, EpochDone, Event, Finished, Image, Record, Started
from harness.journal import Attempt
from harness.provenance import without_passwords

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints the traceback of what it raises

PARAMS_A_CALL = 100
METRICS_A_CALL = 1000
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "skipped": "KILLED",
    "interrupted": "KILLED",
}


STORE_ERRORS = (MlflowException, OSError)
"""What a store raises that stops answering: its own exception, or one of the network, the disk or the database."""


class TrackingError(Exception):
    """The store cannot be used; the message is one line."""


def default_uri(out: Path) -> str:
    """Return the tracking URI that is used when none is given: $MLFLOW_TRACKING_URI, else SQLite in `out`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.absolute() / 'mlflow.db'}"


class Tracker:
    """Writes the sweep's parent run and one child run per run, live."""

    def __init__(self, uri: str, *, out: Path) -> None:
        """Open (or create) the store. Raises TrackingError with one line if it does not answer."""
        self.uri = uri
        self._artifacts = (out / "artifacts").absolute()
        _check_server_listens(uri)
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._client.search_experiments(max_results=1)
        except STORE_ERRORS as error:
            raise TrackingError(
                f"tracking: expected an MLflow store at {without_passwords(uri)}, got: {_first_line(error)}. "
                "Start it, or give another --tracking-uri."
            ) from error
        self._children: dict[str, str] = {}
        self._runs: dict[str, RunConfig] = {}
        self.experiment_id = self.parent_id = ""

    def open_sweep(
        self,
        *,
        name: str,
        sweep_id: str,
        runs: Sequence[RunConfig],
        tags: Mapping[str, str],
        files: Mapping[str, str],
    ) -> None:
        """Find or create experiment and parent run of a sweep; `files` become the parent's artifacts, by name."""
        self._runs = {run.key: run for run in runs}
        self._grid = name
        self.experiment_id = self._experiment(name)
        filter_string = f"tags.`harness.sweep_id` = '{sweep_id}'"
        found = self._client.search_runs([self.experiment_id], filter_string=filter_string, max_results=1)
        if found:
            self.parent_id = found[0].info.run_id
            self._children = self._existing_children()
        else:
            all_tags = {"harness.kind": "sweep", "harness.sweep_id": sweep_id, "grid": name, **tags}
            self.parent_id = self._client.create_run(
                self.experiment_id, run_name=f"sweep {name}", tags=all_tags
            ).info.run_id
        self._client.update_run(self.parent_id, status="RUNNING")
        for key, value in tags.items():
            self._client.set_tag(self.parent_id, key, value)
        for file_name, text in files.items():
            self._client.log_text(self.parent_id, text, file_name)

    def write(self, record: Record, attempt: Attempt) -> None:
        """Forward one record; `attempt` holds it and all records of the same run before it."""
        run = self._runs.get(record.run_key)
        if run is None:  # a run that a former version of the grid had
            return
        event = record.event
        if isinstance(event, Started):
            self._start(run, record, event)
        child = self._children.get(run.key) or self._start(run, record, None)
        if isinstance(event, EpochDone):
            self._log_metrics(child, event.metrics, record.time_ms, event.step)
        elif isinstance(event, Image):
            self._log_picture(child, event)
        elif isinstance(event, TERMINAL):
            self._finish(run, child, record, attempt)

    def close_sweep(self, status: str, counts: Mapping[str, int]) -> None:
        """Set the parent's status and its summary counts."""
        for name, count in counts.items():
            self._client.set_tag(self.parent_id, f"harness.n_{name}", str(count))
        self._client.set_terminated(self.parent_id, status=status)

    def missing(self, attempts: Mapping[str, Attempt]) -> set[str]:
        """Return the keys of the attempts that the store does not have from beginning to end."""
        stored = self._ended_attempts()
        return {
            key
            for key, attempt in attempts.items()
            if key in self._runs and str(attempt.records[0].time_ms) != stored.get(key)
        }

    def replay(self, attempts: Iterable[Attempt]) -> None:
        """Write whole attempts again; what the store had of them is replaced."""
        for attempt in attempts:
            for record in attempt.records:
                self.write(record, attempt)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        remote = urlsplit(self.uri).scheme in ("http", "https")
        location = None if remote else (self._artifacts / name).as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _existing_children(self) -> dict[str, str]:
        return {run.data.tags["run_key"]: run.info.run_id for run in self._search_children()}

    def _ended_attempts(self) -> dict[str, str]:
        ended = (run.data.tags for run in self._search_children() if run.info.status != "RUNNING")
        return {tags["run_key"]: tags["harness.attempt"] for tags in ended}

    def _search_children(self) -> Iterable[Any]:
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                filter_string=f"tags.`harness.sweep` = '{self.parent_id}'",
                max_results=1000,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _start(self, run: RunConfig, record: Record, event: Started | None) -> str:
        if (
            old := self._children.pop(run.key, None)
        ) is not None:  # an interrupted or failed attempt, replaced by this one
            self._client.delete_run(old)
        identity = {
            "estimator": run.estimator.name,
            "schedule": run.schedule.label,
            "device": run.device,
            "seed": str(run.seed),
            "run_key": run.key,
            "grid": self._grid,
        }
        tags = {
            **identity,
            "mlflow.parentRunId": self.parent_id,
            "harness.kind": "run",
            "harness.sweep": self.parent_id,
            "harness.label": run.label,
            "harness.estimator_label": run.estimator.label,
            "harness.status": "running",
            "harness.attempt": str(record.time_ms),
        }
        child = self._client.create_run(self.experiment_id, record.time_ms, tags, run_name=run.name).info.run_id
        self._children[run.key] = str(child)
        params = [Param(key, str(value)) for key, value in {**run.flat(), **identity}.items()]
        for i in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(child, params=params[i : i + PARAMS_A_CALL])
        self._client.log_text(child, run.to_json(), "config.json")
        if event is not None:
            self._client.log_text(child, json.dumps(event.provenance, indent=1), "provenance.json")
        return str(child)

    def _log_metrics(self, child: str, metrics: Mapping[str, float], time_ms: int, step: int) -> None:
        entities = [Metric(name, value, time_ms, step) for name, value in metrics.items()]
        for i in range(0, len(entities), METRICS_A_CALL):
            self._client.log_batch(child, metrics=entities[i : i + METRICS_A_CALL])

    def _log_picture(self, child: str, image: Image) -> None:
        import io

        from PIL import Image as PILImage

        picture = PILImage.open(io.BytesIO(image.png))
        self._client.log_image(child, picture, artifact_file=f"images/{image.name}.png")
        self._client.log_image(child, picture, key=image.name, step=image.step)

    def _finish(self, run: RunConfig, child: str, record: Record, attempt: Attempt) -> None:
        event: Event = record.event
        if isinstance(event, Finished):
            curves = {name for epoch in attempt.epochs for name in epoch.metrics}
            last = {name: value for name, value in event.metrics.items() if name in curves}
            once = {name: value for name, value in event.metrics.items() if name not in curves}
            self._log_metrics(child, last, record.time_ms, event.step)
            self._log_metrics(child, once, record.time_ms, 0)  # the UI draws bars for what has only step 0
        else:
            self._client.set_tag(child, "harness.error", getattr(event, "error", "")[:5000])
        if traceback := getattr(event, "traceback", ""):
            self._client.log_text(child, traceback, "error.txt")
        rows = [{"epoch": e.epoch, "step": e.step, "elapsed_s": e.elapsed_s, **e.metrics} for e in attempt.epochs]
        self._client.log_text(child, json.dumps(rows), "history.json")
        self._client.log_batch(child, tags=[RunTag("harness.status", event.kind)])
        self._client.set_terminated(child, MLFLOW_STATUS[event.kind], record.time_ms)


def _check_server_listens(uri: str) -> None:
    """Fail within seconds, not minutes, when nothing answers at an http address."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise TrackingError(
            f"tracking: expected an MLflow server at {without_passwords(uri)}, got: {error}. "
            "Start it, or give another --tracking-uri."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
