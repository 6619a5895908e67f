"""The writer of one sweep in MLflow: a parent run, and a child run for each of its runs, live."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Metric, Param, RunTag

from harness.config import RunConfig
from harness.events import TERMINAL, Picture, Record, Started
from harness.status.sweep_description import StoreSummary
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import Span
from harness.tracking.best_runs import tag_best
from harness.tracking.child_runs import Children
from harness.tracking.connection import connect
from harness.tracking.data_inputs import dataset_inputs
from harness.tracking.databases import is_database
from harness.tracking.description_tags import description_tags
from harness.tracking.experiment_runs import ExperimentRuns
from harness.tracking.files import Files
from harness.tracking.logged_models import log_model
from harness.tracking.moved_results import follow_moved_files
from harness.tracking.records import (
    MLFLOW_STATUS,
    Entity,
    artifact_checksums,
    artifacts_by_name,
    attempt_until,
    batches,
    checksum_tag,
    metrics_and_tags,
    newest_tags,
    param,
    resumes,
    sha256,
    stated_checksums,
    tag,
)
from harness.tracking.refusals import Refusals
from harness.tracking.system_metrics import SystemMetrics
from reports.contract import stored_run as names
from reports.contract.artifact_paths import ARTIFACTS_FOLDER
from reports.contract.sqlite_uri import unambiguous

NO_SUMMARY = StoreSummary()


class Tracker:
    """The writer of a sweep's parent run and of one child run per run, live."""

    def __init__(self, uri: str, *, out: Path) -> None:
        """Open (or create) the store.

        Raises StoreUnavailableError if it does not answer now, TrackingError if it is no store.
        """
        self.uri = unambiguous(uri)
        self._out = out
        self._artifacts = (out / ARTIFACTS_FOLDER).absolute()
        self._client = connect(self.uri, out)
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
        description: str = "",
    ) -> None:
        """Find or create experiment and parent run of a sweep; `files` become the parent's artifacts, by name.

        `description` is in Markdown. Call only while holding the sweep's lease.
        """
        if is_database(self.uri):
            follow_moved_files(self.uri, self._out, own=name)
        self._planned = {run.key: run for run in runs}
        self._grid, self._sweep_id = name, sweep_id
        self.experiment_id = self._find_or_create_experiment(name)
        self._runs = ExperimentRuns(self._client, self.experiment_id)
        own = {names.TAG_KIND: names.KIND_SWEEP, names.TAG_SWEEP_ID: sweep_id, names.TAG_GRID: name}
        self.parent_id = self._runs.find_parent(sweep_id) or self._runs.create(f"sweep {name}", own)
        self._children = Children(self._runs, self.parent_id, files_are_here=is_database(self.uri))
        self._client.update_run(self.parent_id, status="RUNNING")
        self._log_batches(self.parent_id, [tag(key, value) for key, value in tags.items()])
        self._log_files(files)
        parent = self._client.get_run(self.parent_id)
        self._log_batches(self.parent_id, description_tags(parent.data.tags, description))
        self._begun_ms = parent.info.start_time

    def extend(self, runs: Sequence[RunConfig], files: Mapping[str, str]) -> None:
        """Take the runs of a plan that has grown, and the files of the parent that tell them."""
        self._planned = {run.key: run for run in runs}
        self._log_files(files)

    def _log_files(self, files: Mapping[str, str]) -> None:
        """Write artifacts of the parent, with their checksums; those of files that are not sent stay."""
        contents = {name: text.encode() for name, text in files.items()}
        self._files.log(self.parent_id, contents)
        stated = stated_checksums(self._client.get_run(self.parent_id).data.tags)
        stated |= {name: sha256(content) for name, content in contents.items()}
        self._log_batches(self.parent_id, [checksum_tag(stated)])

    def write(self, records: Sequence[Record], attempt: Attempt) -> None:
        """Forward consecutive records of one attempt, in as few calls as their kinds allow.

        `attempt` contains at least every record up to the last of these. It may have newer ones.
        """
        run = self._planned.get(records[0].run_key)
        if run is None:  # it is no longer in the grid
            return
        attempt = attempt_until(records[-1], attempt)
        child = ""
        with self.refusals.tolerated(f"run {run.name}"):
            child = self._children.find_or_create(run, attempt, self._identity(run))
        if not child:  # the store refused to create the run, which `refusals` has noted
            return
        if any(resumes(record, attempt) for record in records):  # first: this batch may also have the tags of its end
            self._client.update_run(child, status="RUNNING")
        self._write_entities_and_files(child, run, records, attempt)
        for record in records:
            if isinstance(record.event, Picture):
                again = self._children.was_stored(child)
                with self.refusals.tolerated(f"picture {record.event.name} for charts"):
                    self._files.log_for_charts(child, record.event, record.time_ms, again=again)
        last = next((r for r in reversed(records) if isinstance(r.event, (Started, *TERMINAL))), None)
        if last is not None and isinstance(last.event, TERMINAL):
            with self.refusals.tolerated(f"model of {run.name}"):
                log_model(self._client, child, run, attempt)
            self._client.set_terminated(child, MLFLOW_STATUS[last.event.kind], last.time_ms)

    def _write_entities_and_files(
        self, child: str, run: RunConfig, records: Sequence[Record], attempt: Attempt
    ) -> None:
        entities: list[Entity] = []
        files: dict[str, bytes] = {}
        config = run.to_json().encode()
        if records[0] is attempt.records[0]:
            entities += [param(name, value) for name, value in {**run.flat(), **self._identity(run)}.items()]
            files[names.CONFIG_FILE] = config
            if "data" in run.sections:
                with self.refusals.tolerated(f"data set {run.data.name}"):
                    self._client.log_inputs(child, dataset_inputs(run.data))
        for record in records:
            entities += metrics_and_tags(record, attempt)
            files |= artifacts_by_name(record, attempt)
        with self.refusals.tolerated(f"files of {run.name}"):
            self._files.log(child, files)
        if files:
            entities.append(checksum_tag({names.CONFIG_FILE: sha256(config), **artifact_checksums(attempt)}))
        self._log_batches(child, newest_tags(entities))

    @cached_property
    def _system(self) -> SystemMetrics:
        return SystemMetrics(self._begun_ms)

    def write_system(self) -> None:
        """Write the next system metrics, if they are due."""
        if points := self._system.due():
            self._log_batches(self.parent_id, points)

    def close_sweep(
        self, status: str, counts: Mapping[str, int], spans: Mapping[str, Span], summary: StoreSummary = NO_SUMMARY
    ) -> None:
        """Set the parent's status, description and counts, tag the best runs, and record that all is stored."""
        self._children.delete_duplicates()
        self._runs.delete(each for each in self._runs.parents(self._sweep_id) if each != self.parent_id)
        tag_best(self._client, self._runs, self.parent_id, summary.best)
        tags = [RunTag(f"{names.TAG_COUNT_PREFIX}{name}", str(count)) for name, count in counts.items()]
        tags += description_tags(self._client.get_run(self.parent_id).data.tags, summary.description)
        if not self.refusals.count:  # else the next sweep looks at every run again
            tags.append(RunTag(names.TAG_STORED, self._digest(spans)))
        self._log_batches(self.parent_id, tags)
        self._client.set_terminated(self.parent_id, status=status)

    def missing(self, spans: Mapping[str, Span], *, thorough: bool) -> set[str]:
        """Return the keys of the runs whose newest attempt has ended but is incomplete in the store.

        Reading 10,000 runs from MLflow takes half a minute. So, unless asked to be thorough, this trusts the tag of
        the last sweep that closed, if nothing has happened since.
        """
        if not thorough and self._client.get_run(self.parent_id).data.tags.get(names.TAG_STORED) == self._digest(spans):
            self._children.read_later(set(spans))
            return set()
        self._children.read()
        stored = self._children.spans()
        return {key for key, span in spans.items() if key in self._planned and stored.get(key) != span}

    def _digest(self, spans: Mapping[str, Span]) -> str:
        mine = sorted((key, *span) for key, span in spans.items() if key in self._planned)
        return hashlib.sha256(json.dumps(mine).encode()).hexdigest()

    def _find_or_create_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found is not None:
            if names.TAG_EXPERIMENT_KIND not in found.tags:
                self._client.set_experiment_tag(found.experiment_id, names.TAG_EXPERIMENT_KIND, names.EXPERIMENT_KIND)
            return str(found.experiment_id)
        remote = urlsplit(self.uri).scheme in ("http", "https")
        location = None if remote else (self._artifacts / name).as_uri()
        tags = {names.TAG_EXPERIMENT_KIND: names.EXPERIMENT_KIND}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))

    def _identity(self, run: RunConfig) -> dict[str, str]:
        return {
            names.TAG_ESTIMATOR: run.estimator.name,
            names.TAG_SCHEDULE: run.schedule.label,
            names.TAG_DEVICE: run.device,
            names.TAG_SEED: str(run.seed),
            names.TAG_RUN_KEY: run.key,
            names.TAG_GRID: self._grid,
        }

    def _log_batches(self, run_id: str, entities: Sequence[Entity]) -> None:
        """Log metrics, params and tags together, in calls that are not too large."""

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
