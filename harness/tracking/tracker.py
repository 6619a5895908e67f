"""One sweep's writer of MLflow: a parent run, and a child run for each of its runs, live."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from harness.config import RunConfig
from harness.environment import variable
from harness.events import TERMINAL, Image, Record, Started
from harness.status.note import Outcome
from harness.storage.journal import Attempt
from harness.storage.sweep_state import Span
from harness.tracking.best import tag_best
from harness.tracking.children import Children, Runs
from harness.tracking.databases import is_database, make_sqlite, try_server, with_limit
from harness.tracking.errors import STORE_ERRORS, Down, TrackingError, advice, check_server, is_outage
from harness.tracking.files import Files
from harness.tracking.inputs import inputs_of
from harness.tracking.models import log_model
from harness.tracking.moved import follow_moved_files
from harness.tracking.notes import note_tags
from harness.tracking.records import (
    MLFLOW_STATUS,
    Entity,
    batches,
    checksum_tag,
    entities_of,
    files_of,
    goes_on,
    newest_tags,
    param,
    sha256,
    stated_sums,
    sums,
    tag,
    up_to,
)
from harness.tracking.refusals import Refusals
from harness.tracking.system import SystemMetrics
from reports.contract.places import ARTIFACTS
from reports.contract.sqlite_uri import DATABASE, sqlite_uri, unambiguous
from reports.contract.stored_run import (
    CONFIG_FILE,
    EXPERIMENT_KIND,
    KIND_SWEEP,
    TAG_COUNT_PREFIX,
    TAG_DEVICE,
    TAG_ESTIMATOR,
    TAG_EXPERIMENT_KIND,
    TAG_GRID,
    TAG_KIND,
    TAG_RUN_KEY,
    TAG_SCHEDULE,
    TAG_SEED,
    TAG_STORED,
    TAG_SWEEP_ID,
)
from reports.contract.text import first_line, without_passwords

NOTHING = Outcome()


def default_uri(out: Path) -> str:
    """Return the tracking URI that is used when none is given: $MLFLOW_TRACKING_URI, else SQLite in `out`."""
    return variable("MLFLOW_TRACKING_URI") or sqlite_uri(out / DATABASE)


def _check_is_utf8(out: Path) -> None:
    """Raise TrackingError for a folder that MLflow's URIs cannot name: they are UTF-8, names of folders need not be."""
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise TrackingError(
            f"--out: expected a folder whose name is UTF-8, got {str(out)!a}. Rename it, or give another --out."
        ) from None


class Tracker:
    """Writes the sweep's parent run and one child run per run, live."""

    def __init__(self, uri: str, *, out: Path) -> None:
        """Open (or create) the store. Raises Down if it does not answer now, TrackingError if it is none."""
        self.uri = uri = unambiguous(uri)
        self._out = out
        self._artifacts = (out / ARTIFACTS).absolute()
        check_server(uri)
        if is_database(uri):
            _check_is_utf8(self._artifacts.parent)
        try:
            make_sqlite(uri)
            try_server(uri)
            self._client = MlflowClient(tracking_uri=with_limit(uri))
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
                f"{advice(error)}, or give another --tracking-uri."
            ) from error
        self.refusals = Refusals()
        self._files = Files(self._client)
        self._planned: dict[str, RunConfig] = {}
        self.experiment_id = self.parent_id = ""

    def open_sweep(
        self,
        *,
        name: str,
        sweep_id: str,
        runs: Sequence[RunConfig],
        tags: Mapping[str, str],
        files: Mapping[str, str],
        note: str = "",
    ) -> None:
        """Find or create experiment and parent run of a sweep; `files` become the parent's artifacts, by name.

        `note` is its description, in Markdown. Call it while holding the sweep's lease.
        """
        if is_database(self.uri):
            follow_moved_files(self.uri, self._out, own=name)
        self._planned = {run.key: run for run in runs}
        self._grid, self._sweep_id = name, sweep_id
        self.experiment_id = self._experiment(name)
        self._runs = Runs(self._client, self.experiment_id)
        own = {TAG_KIND: KIND_SWEEP, TAG_SWEEP_ID: sweep_id, TAG_GRID: name}
        self.parent_id = self._runs.only_parent(sweep_id) or self._runs.create(f"sweep {name}", own)
        self._children = Children(self._runs, self.parent_id, files_are_here=is_database(self.uri))
        self._client.update_run(self.parent_id, status="RUNNING")
        self._log_batches(self.parent_id, [tag(key, value) for key, value in tags.items()])
        contents = {name: text.encode() for name, text in files.items()}
        self._files.log(self.parent_id, contents)
        parent = self._client.get_run(self.parent_id)
        stated = stated_sums(parent.data.tags)  # also of files that are not sent again
        stated |= {name: sha256(content) for name, content in contents.items()}
        self._log_batches(self.parent_id, [checksum_tag(stated), *note_tags(parent.data.tags, note)])
        self._begun_ms = parent.info.start_time

    def write(self, records: Sequence[Record], attempt: Attempt) -> None:
        """Forward records of one attempt, in as few calls as their kinds allow.

        They follow each other; `attempt` holds them, all records of the same attempt before them, and maybe later ones.
        """
        run = self._planned.get(records[0].run_key)
        if run is None:  # a run that a former version of the grid had
            return
        attempt = up_to(records[-1], attempt)
        entities: list[Entity] = []
        files: dict[str, bytes] = {}
        child = ""
        with self.refusals.costing(f"run {run.name}"):
            child = self._children.of(run, attempt, self._identity(run))
        if not child:
            return
        if any(goes_on(record, attempt) for record in records):  # before its tags say that it has ended
            self._client.update_run(child, status="RUNNING")
        if records[0] is attempt.records[0]:
            entities += [param(name, value) for name, value in {**run.flat(), **self._identity(run)}.items()]
            files[CONFIG_FILE] = run.to_json().encode()
            with self.refusals.costing(f"data set {run.data.name}"):
                self._client.log_inputs(child, inputs_of(run.data))
        for record in records:
            entities += entities_of(record, attempt)
            files |= files_of(record, attempt)
        with self.refusals.costing(f"files of {run.name}"):
            self._files.log(child, files)
        if files:
            entities.append(checksum_tag({CONFIG_FILE: sha256(run.to_json().encode()), **sums(attempt)}))
        self._log_batches(child, newest_tags(entities))
        for record in records:
            if isinstance(record.event, Image):
                again = self._children.was_read(child)
                with self.refusals.costing(f"picture {record.event.name} for charts"):
                    self._files.log_for_charts(child, record.event, record.time_ms, again=again)
        last = next((r for r in reversed(records) if isinstance(r.event, (Started, *TERMINAL))), None)
        if last is not None and isinstance(last.event, TERMINAL):
            with self.refusals.costing(f"model of {run.name}"):
                log_model(self._client, child, run, attempt)
            self._client.set_terminated(child, MLFLOW_STATUS[last.event.kind], last.time_ms)

    @cached_property
    def _system(self) -> SystemMetrics:
        return SystemMetrics(self._begun_ms)

    def write_system(self) -> None:
        """Write what the machine does, if it is time for that."""
        if points := self._system.due():
            self._log_batches(self.parent_id, points)

    def close_sweep(
        self, status: str, counts: Mapping[str, int], spans: Mapping[str, Span], told: Outcome = NOTHING
    ) -> None:
        """Set the parent's status, note and counts, the best runs, and that the store has all of these attempts."""
        self._children.delete_doubles()
        self._runs.delete(each for each in self._runs.parents(self._sweep_id) if each != self.parent_id)
        tag_best(self._client, self._runs, self.parent_id, told.best)
        tags = [RunTag(f"{TAG_COUNT_PREFIX}{name}", str(count)) for name, count in counts.items()]
        tags += note_tags(self._client.get_run(self.parent_id).data.tags, told.note)
        if not self.refusals.count:  # else the next sweep looks at every run again
            tags.append(RunTag(TAG_STORED, self._digest(spans)))
        self._log_batches(self.parent_id, tags)
        self._client.set_terminated(self.parent_id, status=status)

    def missing(self, spans: Mapping[str, Span], *, thorough: bool) -> set[str]:
        """Return the keys of the runs whose newest attempt, which has ended, the store did not have to its end.

        Reading 10,000 runs from MLflow takes half a minute. So, unless asked to be thorough, this believes the tag of
        the last sweep that closed, if nothing has happened since.
        """
        if not thorough and self._client.get_run(self.parent_id).data.tags.get(TAG_STORED) == self._digest(spans):
            self._children.read_later(set(spans))
            return set()
        self._children.read()
        stored = self._children.spans()
        return {key for key, span in spans.items() if key in self._planned and stored.get(key) != span}

    def _digest(self, spans: Mapping[str, Span]) -> str:
        mine = sorted((key, *span) for key, span in spans.items() if key in self._planned)
        return hashlib.sha256(json.dumps(mine).encode()).hexdigest()

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found is not None:
            if TAG_EXPERIMENT_KIND not in found.tags:
                self._client.set_experiment_tag(found.experiment_id, TAG_EXPERIMENT_KIND, EXPERIMENT_KIND)
            return str(found.experiment_id)
        remote = urlsplit(self.uri).scheme in ("http", "https")
        location = None if remote else (self._artifacts / name).as_uri()
        return str(
            self._client.create_experiment(
                name, artifact_location=location, tags={TAG_EXPERIMENT_KIND: EXPERIMENT_KIND}
            )
        )

    def _identity(self, run: RunConfig) -> dict[str, str]:
        return {
            TAG_ESTIMATOR: run.estimator.name,
            TAG_SCHEDULE: run.schedule.label,
            TAG_DEVICE: run.device,
            TAG_SEED: str(run.seed),
            TAG_RUN_KEY: run.key,
            TAG_GRID: self._grid,
        }

    def _log_batches(self, run_id: str, entities: Sequence[Entity]) -> None:
        """Log metrics, params and tags together; a call takes so many of each, and so many in all."""

        def write(batch: Sequence[Entity]) -> None:
            self._client.log_batch(
                run_id,
                metrics=[entity for entity in batch if isinstance(entity, Metric)],
                params=[entity for entity in batch if isinstance(entity, Param)],
                tags=[entity for entity in batch if isinstance(entity, RunTag)],
                synchronous=True,  # whatever MLFLOW_ENABLE_ASYNC_LOGGING says: an outage must be raised here
            )

        for batch in batches(entities):
            self.refusals.log(write, batch)
