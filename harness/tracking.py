"""Events → MLflow. The only module that imports mlflow, and the only writer of its store.

Every metric is logged with the time of its event, so that replaying a journal stores nothing twice. A store that stops
answering does not stop the sweep: the journal has everything, and `harness sync` replays it.
"""

import hashlib
import io
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
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
from reports.visible import visible

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints the traceback of what it raises

Entity = Metric | Param | RunTag
A_CALL: dict[type, int] = {Metric: 1000, Param: 100, RunTag: 100}
ENTITIES_A_CALL = 1000
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
        self._log_batches(self.parent_id, [RunTag(key, value) for key, value in tags.items()])
        contents = {name: text.encode() for name, text in files.items()}
        self._log_files(self.parent_id, contents)
        self._log_batches(self.parent_id, [checksum_tag(contents)])

    def write(self, records: Sequence[Record], attempt: Attempt) -> None:
        """Forward records of one attempt, in as few calls as their kinds allow.

        They follow each other; `attempt` holds them and all records of the same attempt before them.
        """
        run = self._runs.get(records[0].run_key)
        if run is None:  # a run that a former version of the grid had
            return
        entities: list[Entity] = []
        files: dict[str, bytes] = {}
        child = self._children.get(run.key)
        if child is None or isinstance(records[0].event, Started):
            child = self._create(run, records[0])
            entities += [Param(key, str(value)) for key, value in {**run.flat(), **self._identity(run)}.items()]
            files["config.json"] = run.to_json().encode()
        for record in records:
            entities += entities_of(record, attempt)
            files |= files_of(record, attempt)
        self._log_files(child, files)
        if files:
            entities.append(checksum_tag({"config.json": run.to_json().encode(), **files_until(records[-1], attempt)}))
        self._log_batches(child, entities)
        for record in records:
            if isinstance(record.event, Image):
                self._chart_picture(child, record.event, record.time_ms)
            elif isinstance(record.event, TERMINAL):
                self._client.set_terminated(child, MLFLOW_STATUS[record.event.kind], record.time_ms)

    def close_sweep(self, status: str, counts: Mapping[str, int]) -> None:
        """Set the parent's status and its summary counts."""
        tags = [RunTag(f"harness.n_{name}", str(count)) for name, count in counts.items()]
        self._log_batches(self.parent_id, tags)
        self._client.set_terminated(self.parent_id, status=status)

    def missing(self, attempts: Mapping[str, Attempt]) -> set[str]:
        """Return the keys of the attempts that the store does not have from beginning to end."""
        stored = self._ended_attempts()
        return {
            key
            for key, attempt in attempts.items()
            if key in self._runs and str(attempt.records[0].time_ms) != stored.get(key)
        }

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

    def _identity(self, run: RunConfig) -> dict[str, str]:
        return {
            "estimator": run.estimator.name,
            "schedule": run.schedule.label,
            "device": run.device,
            "seed": str(run.seed),
            "run_key": run.key,
            "grid": self._grid,
        }

    def _create(self, run: RunConfig, first: Record) -> str:
        """Create the child run of an attempt that begins with `first`; one of an older attempt is deleted."""
        if (old := self._children.pop(run.key, None)) is not None:
            self._client.delete_run(old)
        tags = {
            **self._identity(run),
            "mlflow.parentRunId": self.parent_id,
            "harness.kind": "run",
            "harness.sweep": self.parent_id,
            "harness.label": run.label,
            "harness.estimator_label": run.estimator.label,
            "harness.status": "running",
            "harness.attempt": str(first.time_ms),
        }
        child = self._client.create_run(self.experiment_id, first.time_ms, tags, run_name=run.name).info.run_id
        self._children[run.key] = str(child)
        return str(child)

    def _log_batches(self, run_id: str, entities: Sequence[Entity]) -> None:
        """Log metrics, params and tags together; a call takes so many of each, and so many in all."""
        for batch in batches(entities):
            self._client.log_batch(
                run_id,
                metrics=[entity for entity in batch if isinstance(entity, Metric)],
                params=[entity for entity in batch if isinstance(entity, Param)],
                tags=[entity for entity in batch if isinstance(entity, RunTag)],
            )

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with TemporaryDirectory(prefix="harness-") as folder:
            for name, content in files.items():
                path = Path(folder, name)
                if not path.resolve().is_relative_to(Path(folder).resolve()):  # the name may be a journal's
                    raise TrackingError(f"tracking: expected the name of a file below its run, got {name!r}.")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run_id, folder)

    def _chart_picture(self, child: str, image: Image, time_ms: int) -> None:
        """Log a picture once more, with its step, for the charts of the UI."""
        from PIL import Image as PILImage

        picture = PILImage.open(io.BytesIO(image.png))
        self._client.log_image(child, picture, key=image.name, step=image.step, timestamp=time_ms)


def entities_of(record: Record, attempt: Attempt) -> list[Entity]:
    """Return the metrics of a record, and the tags if it ends its attempt."""
    event: Event = record.event
    entities: list[Entity] = []
    if isinstance(event, EpochDone):
        entities = [Metric(name, value, record.time_ms, event.step) for name, value in event.metrics.items()]
    elif isinstance(event, Finished):
        curves = {name for epoch in attempt.epochs for name in epoch.metrics}
        for name, value in event.metrics.items():  # the UI draws bars for what has only step 0
            entities.append(Metric(name, value, record.time_ms, event.step if name in curves else 0))
    elif isinstance(event, TERMINAL):
        entities.append(RunTag("harness.error", visible(getattr(event, "error", ""), 4900)))
    if isinstance(event, TERMINAL):
        entities.append(RunTag("harness.status", event.kind))
    return entities


def files_of(record: Record, attempt: Attempt) -> dict[str, bytes]:
    """Return the artifacts that a record makes, by name."""
    event: Event = record.event
    if isinstance(event, Started):
        return {"provenance.json": json.dumps(event.provenance, indent=1).encode()}
    if isinstance(event, Image):
        return {f"images/{event.name}.png": event.png}
    if not isinstance(event, TERMINAL):
        return {}
    rows = [{"epoch": e.epoch, "step": e.step, "elapsed_s": e.elapsed_s, **e.metrics} for e in attempt.epochs]
    files = {"history.json": json.dumps(rows).encode()}
    if traceback := getattr(event, "traceback", ""):
        files["error.txt"] = traceback.encode(errors="backslashreplace")
    return files


def files_until(last: Record, attempt: Attempt) -> dict[str, bytes]:
    """Return all artifacts that the records of an attempt make, by name, up to and with the record `last`."""
    files: dict[str, bytes] = {}
    for record in attempt.records:
        files |= files_of(record, attempt)
        if record is last:
            break
    return files


def checksum_tag(files: Mapping[str, bytes]) -> RunTag:
    """Return the tag that a reader verifies a run's files by: their SHA-256 by name, as JSON."""
    found = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return RunTag("harness.sha256", json.dumps(found))


def batches(entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Cut what is to be logged into calls that MLflow takes, in order."""
    batch: list[Entity] = []
    room = dict(A_CALL)
    for entity in entities:
        if not room[type(entity)] or len(batch) == ENTITIES_A_CALL:
            yield batch
            batch, room = [], dict(A_CALL)
        batch.append(entity)
        room[type(entity)] -= 1
    if batch:
        yield batch


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
