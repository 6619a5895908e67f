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
from harness.sweep import Span
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


PER_RUN = "time/"
"""Metrics that have one value a run in the store. Those of each epoch are in its history.json: a step has one value."""

STORE_ERRORS = (MlflowException, OSError)
"""What a store raises that stops answering: its own exception, or one of the network, the disk or the database."""


class TrackingError(Exception):
    """The store cannot be used; the message is one line."""


class Down(OSError):  # noqa: N818 what the store is
    """The store may well be one, but does not answer now; the message is one line."""


def default_uri(out: Path) -> str:
    """Return the tracking URI that is used when none is given: $MLFLOW_TRACKING_URI, else SQLite in `out`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.absolute() / 'mlflow.db'}"


class Tracker:
    """Writes the sweep's parent run and one child run per run, live."""

    def __init__(self, uri: str, *, out: Path) -> None:
        """Open (or create) the store. Raises Down if it does not answer now, TrackingError if it is none."""
        self.uri = uri
        self._artifacts = (out / "artifacts").absolute()
        _check_server_listens(uri)
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._client.search_experiments(max_results=1)
        except STORE_ERRORS as error:
            kind = Down if is_outage(uri, error) else TrackingError
            raise kind(
                f"tracking: expected an MLflow store at {without_passwords(uri)}, got: {_first_line(error)}. "
                "Start it, or give another --tracking-uri."
            ) from error
        self._children: dict[str, tuple[int, str]] = {}  # by run key: the attempt's begin, and its run id
        self._stored: dict[str, Span | None] = {}  # by run id, of those there at the opening; None if they had no end
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
            self._read_children()
        else:
            all_tags = {"harness.kind": "sweep", "harness.sweep_id": sweep_id, "grid": name, **tags}
            self.parent_id = self._client.create_run(
                self.experiment_id, run_name=f"sweep {name}", tags=all_tags
            ).info.run_id
        self._client.update_run(self.parent_id, status="RUNNING")
        self._log_batches(self.parent_id, [RunTag(key, value) for key, value in tags.items()])
        contents = {name: text.encode() for name, text in files.items()}
        self._log_files(self.parent_id, contents)
        self._log_batches(self.parent_id, [checksum_tag({name: sha256(content) for name, content in contents.items()})])

    def write(self, records: Sequence[Record], attempt: Attempt) -> None:
        """Forward records of one attempt, in as few calls as their kinds allow.

        They follow each other; `attempt` holds them and all records of the same attempt before them.
        """
        run = self._runs.get(records[0].run_key)
        if run is None:  # a run that a former version of the grid had
            return
        entities: list[Entity] = []
        files: dict[str, bytes] = {}
        child = self._child(run, attempt)
        if records[0] is attempt.records[0]:
            entities += [Param(name, str(value)) for name, value in {**run.flat(), **self._identity(run)}.items()]
            files["config.json"] = run.to_json().encode()
        for record in records:
            entities += entities_of(record, attempt)
            files |= files_of(record, attempt)
        self._log_files(child, files)
        if files:
            entities.append(checksum_tag({"config.json": sha256(run.to_json().encode()), **sums(records[-1], attempt)}))
        self._log_batches(child, newest_tags(entities))
        for record in records:
            if isinstance(record.event, Image) and not (child in self._stored and self._has_picture(child, record)):
                self._chart_picture(child, record.event, record.time_ms)
        self._set_status(child, records, attempt)

    def _set_status(self, child: str, records: Sequence[Record], attempt: Attempt) -> None:
        """Set MLflow's own status by the last of the records that decides it."""
        for record in reversed(records):
            if isinstance(record.event, TERMINAL):
                self._client.set_terminated(child, MLFLOW_STATUS[record.event.kind], record.time_ms)
                return
            if isinstance(record.event, Started):
                if record is not attempt.records[0]:
                    self._client.update_run(child, status="RUNNING")
                return

    def close_sweep(self, status: str, counts: Mapping[str, int]) -> None:
        """Set the parent's status and its summary counts."""
        tags = [RunTag(f"harness.n_{name}", str(count)) for name, count in counts.items()]
        self._log_batches(self.parent_id, tags)
        self._client.set_terminated(self.parent_id, status=status)

    def missing(self, spans: Mapping[str, Span]) -> set[str]:
        """Return the keys of the runs whose newest attempt, which has ended, the store did not have to its end."""
        stored = {key: self._stored.get(run_id) for key, (_, run_id) in self._children.items()}
        return {key for key, span in spans.items() if key in self._runs and stored.get(key) != span}

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        remote = urlsplit(self.uri).scheme in ("http", "https")
        location = None if remote else (self._artifacts / name).as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _read_children(self) -> None:
        """Take note of the attempts that the store has, and until when it has those that have ended."""
        for run in self._search_children():
            tags = run.data.tags
            begun_ms = int(tags["harness.attempt"])
            ended = run.info.status != "RUNNING" and "harness.end" in tags
            self._children[tags["run_key"]] = begun_ms, run.info.run_id
            self._stored[run.info.run_id] = Span(begun_ms, int(tags["harness.end"])) if ended else None

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

    def _child(self, run: RunConfig, attempt: Attempt) -> str:
        """Return the id of the child run of an attempt, made if there is none; one of an older attempt is deleted."""
        begun_ms, child = self._children.get(run.key, (0, ""))
        if child and begun_ms != attempt.begun_ms:
            self._client.delete_run(child)
        if not child or begun_ms != attempt.begun_ms:
            child = self._create(run, attempt)
            self._children[run.key] = attempt.begun_ms, child
        return child

    def _create(self, run: RunConfig, attempt: Attempt) -> str:
        tags = {
            **self._identity(run),
            "mlflow.parentRunId": self.parent_id,
            "harness.kind": "run",
            "harness.sweep": self.parent_id,
            "harness.label": run.label,
            "harness.estimator_label": run.estimator.label,
            "harness.status": "running",
            "harness.attempt": str(attempt.begun_ms),
        }
        return str(self._client.create_run(self.experiment_id, attempt.begun_ms, tags, run_name=run.name).info.run_id)

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

    def _has_picture(self, child: str, record: Record) -> bool:
        """Return whether the charts have this picture already, from before an outage."""
        image = record.event
        assert isinstance(image, Image)  # noqa: S101
        name = f"{image.name}%step%{image.step}%timestamp%{record.time_ms}%"
        return any(name in file.path for file in self._client.list_artifacts(child, "images"))


def newest_tags(entities: Sequence[Entity]) -> list[Entity]:
    """Return the entities with each tag once, as it was set last: a call takes no tag twice."""
    tags = {entity.key: entity for entity in entities if isinstance(entity, RunTag)}
    return [*(entity for entity in entities if not isinstance(entity, RunTag)), *tags.values()]


def entities_of(record: Record, attempt: Attempt) -> list[Entity]:
    """Return the metrics of a record, and the tags if it ends its attempt or goes on with it."""
    event: Event = record.event
    entities: list[Entity] = []
    if isinstance(event, EpochDone):
        values = {name: value for name, value in event.metrics.items() if not name.startswith(PER_RUN)}
        entities = [Metric(name, value, record.time_ms, event.step) for name, value in values.items()]
    elif isinstance(event, Finished):
        entities = [Metric(name, value, record.time_ms, 0) for name, value in event.metrics.items()]  # drawn as bars
    elif isinstance(event, TERMINAL):
        entities.append(RunTag("harness.error", visible(getattr(event, "error", ""), 4900)))
    elif isinstance(event, Started) and record is not attempt.records[0]:
        starts = sum(isinstance(each.event, Started) for each in attempt.records)
        entities += [RunTag("harness.starts", str(starts)), RunTag("harness.error", "")]
        entities.append(RunTag("harness.status", "running"))
    if isinstance(event, TERMINAL):
        entities += [RunTag("harness.status", event.kind), RunTag("harness.end", str(record.time_ms))]
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


def sums(last: Record, attempt: Attempt) -> dict[str, str]:
    """Return the SHA-256 of all artifacts of an attempt, by name, up to and with the record `last`."""
    found: dict[str, str] = {}
    for record in attempt.records:
        if isinstance(record.event, Image):  # whose bytes may have been left in the journal
            found[f"images/{record.event.name}.png"] = record.event.sha256
        else:
            found |= {name: sha256(content) for name, content in files_of(record, attempt).items()}
        if record is last:
            break
    return found


def checksum_tag(checksums: Mapping[str, str]) -> RunTag:
    """Return the tag that a reader verifies a run's files by: their SHA-256 by name, as JSON."""
    return RunTag("harness.sha256", json.dumps(checksums))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
        raise Down(
            f"tracking: expected an MLflow server at {without_passwords(uri)}, got: {error}. "
            "Start it, or give another --tracking-uri."
        ) from error


def is_outage(uri: str, error: BaseException) -> bool:
    """Return whether a store that failed may be there another time: a server without an answer, a locked database."""
    reason = str(error)
    if urlsplit(uri).scheme in ("http", "https"):
        return True
    return "OperationalError" in reason and "unable to open database file" not in reason


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
