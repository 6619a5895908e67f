"""Events → MLflow. The only module that imports mlflow, and the only writer of its store.

Every metric is logged with the time of its event, so that replaying a journal stores nothing twice. A store that stops
answering does not stop the sweep: the journal has everything, and `harness sync` replays it.
"""

import hashlib
import io
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import logging

import requests
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.multimedia import compress_image_size
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

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

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""What a store raises that stops answering: its own exception, or one of the network, the disk or the database."""

ANSWER_S = 10.0
"""A server that has not answered a simple question for so long is down."""

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


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
        check_server(uri)
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._client.search_experiments(max_results=1)
        except ImportError as error:
            raise TrackingError(
                f"tracking: expected the driver of the database at {without_passwords(uri)}, got: {error}. Install it; "
                "for PostgreSQL: pip install 'argmax-harness[postgres]', and postgresql+psycopg2://… as the URI."
            ) from error
        except STORE_ERRORS as error:
            kind = Down if is_outage(uri, error) else TrackingError
            raise kind(
                f"tracking: expected an MLflow store at {without_passwords(uri)}, got: {first_line(error)}. "
                "Start it, or give another --tracking-uri."
            ) from error
        self._children: dict[str, tuple[int, str]] = {}  # by run key: the attempt's begin, and its run id
        self._stored: dict[str, Span | None] = {}  # by run id, of those there at the opening; None if they had no end
        self._unread: set[str] = set()  # keys of runs that the store has, but of which this tracker has not asked yet
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
        self._grid, self._sweep_id = name, sweep_id
        self.experiment_id = self._experiment(name)
        if found := self._parents():
            self.parent_id = self._only_parent(found)
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
        if any(goes_on(record, attempt) for record in records):  # before its tags say that it has ended
            self._client.update_run(child, status="RUNNING")
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
            if isinstance(record.event, Image):
                self._chart_picture(child, record.event, record.time_ms)
        last = next((r for r in reversed(records) if isinstance(r.event, (Started, *TERMINAL))), None)
        if last is not None and isinstance(last.event, TERMINAL):
            self._client.set_terminated(child, MLFLOW_STATUS[last.event.kind], last.time_ms)

    def close_sweep(self, status: str, counts: Mapping[str, int], spans: Mapping[str, Span]) -> None:
        """Set the parent's status, its summary counts, and that the store has these attempts to their ends."""
        self._delete_doubles()
        tags = [RunTag(f"harness.n_{name}", str(count)) for name, count in counts.items()]
        self._log_batches(self.parent_id, [*tags, RunTag("harness.stored", self._digest(spans))])
        self._client.set_terminated(self.parent_id, status=status)

    def missing(self, spans: Mapping[str, Span], *, thorough: bool) -> set[str]:
        """Return the keys of the runs whose newest attempt, which has ended, the store did not have to its end.

        Reading 10,000 runs from MLflow takes half a minute. So, unless asked to be thorough, this believes the tag of
        the last sweep that closed, if nothing has happened since.
        """
        if not thorough and self._client.get_run(self.parent_id).data.tags.get("harness.stored") == self._digest(spans):
            self._unread = set(spans)
            return set()
        self._read_children(children_of(self.parent_id))
        stored = {key: self._stored.get(run_id) for key, (_, run_id) in self._children.items()}
        return {key for key, span in spans.items() if key in self._runs and stored.get(key) != span}

    def _digest(self, spans: Mapping[str, Span]) -> str:
        mine = sorted((key, *span) for key, span in spans.items() if key in self._runs)
        return hashlib.sha256(json.dumps(mine).encode()).hexdigest()

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        remote = urlsplit(self.uri).scheme in ("http", "https")
        location = None if remote else (self._artifacts / name).as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _parents(self) -> list[str]:
        """Return the ids of the sweep's parent runs; there may be two where the answer to a creation was lost."""
        return [run.info.run_id for run in self._search(f"tags.`harness.sweep_id` = '{self._sweep_id}'")]

    def _only_parent(self, found: Sequence[str]) -> str:
        """Return the parent that has children, if any has; the others are deleted."""
        kept = found[0]
        if len(found) > 1:
            kept = next((each for each in found if any(self._search(children_of(each), 1))), kept)
        for each in found:
            if each != kept:
                self._client.delete_run(each)
        return kept

    def _read_children(self, filter_string: str) -> None:
        """Take note of the attempts that the store has, and until when it has those that have ended.

        Of several runs with one key, left by an answer that was lost, the newest attempt stays, the ended one first.
        """
        doubles = []
        for run in self._search(filter_string):
            tags, run_id = run.data.tags, run.info.run_id
            begun_ms = int(tags["harness.attempt"])
            ended = run.info.status != "RUNNING" and "harness.end" in tags
            self._stored[run_id] = Span(begun_ms, int(tags["harness.end"])) if ended else None
            mine = begun_ms, run_id
            other = self._children.get(tags["run_key"], mine)
            worse, better = sorted((other, mine), key=lambda each: (each[0], self._stored[each[1]] is not None))
            self._children[tags["run_key"]] = better
            if worse != better:
                doubles.append(worse[1])
        for run_id in doubles:
            self._client.delete_run(run_id)

    def _delete_doubles(self) -> None:
        """Delete what the store created though its answer was lost, so that MLflow asked it a second time."""
        known = {self.parent_id, *(run_id for _, run_id in self._children.values())}
        running = self._search(f"{children_of(self.parent_id)} AND tags.`harness.status` = 'running'")
        for run_id in {*self._parents(), *(run.info.run_id for run in running)} - known:
            self._client.delete_run(run_id)

    def _search(self, filter_string: str, page: int = 1000) -> Iterator[Any]:
        """Yield all runs of the experiment that the filter finds, asked for by so many at a time."""
        token: str | None = None
        while token is None or token:
            found = self._client.search_runs(
                [self.experiment_id], filter_string=filter_string, max_results=page, page_token=token
            )
            yield from found
            token = found.token or ""

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
        if run.key in self._unread:
            self._read_children(f"{children_of(self.parent_id)} AND tags.run_key = '{run.key}'")
            self._unread.remove(run.key)
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
        """Log a picture once more, with its step, for the charts of the UI: over what they had before an outage."""
        from PIL import Image as PILImage

        picture = PILImage.open(io.BytesIO(image.png))
        found = self._chart_file(child, image, time_ms) if child in self._stored else None
        if found is None:
            self._client.log_image(child, picture, key=image.name, step=image.step, timestamp=time_ms)
            return
        small = io.BytesIO()
        compress_image_size(picture).save(small, "webp")
        name, separator = found
        self._log_files(child, {f"{name}.png": image.png, f"{name}{separator}compressed.webp": small.getvalue()})
        self._client.set_tag(child, "mlflow.loggedImages", True)

    def _chart_file(self, child: str, image: Image, time_ms: int) -> tuple[str, str] | None:
        """Return the name, without its ending, and the separator in it that the charts' picture has, or None."""
        parts = (re.escape(image.name), "step", str(image.step), "timestamp", str(time_ms), "[^+%.]+")
        for separator in "+%":  # older MLflow has the second
            pattern = re.compile("(images/" + re.escape(separator).join(parts) + ").*")
            for file in self._client.list_artifacts(child, "images"):
                if match := pattern.fullmatch(file.path):
                    return match[1], separator
        return None


def children_of(parent_id: str) -> str:
    """Return the filter that finds the child runs of a sweep."""
    return f"tags.`harness.sweep` = '{parent_id}'"


def goes_on(record: Record, attempt: Attempt) -> bool:
    """Return whether a record is a further start of its attempt, after it was cut short."""
    return isinstance(record.event, Started) and record is not attempt.records[0]


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
    elif goes_on(record, attempt):
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
    return any(isinstance(e, OperationalError) for e in causes) and "unable to open database file" not in str(error)


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
