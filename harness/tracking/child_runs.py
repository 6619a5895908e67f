"""The child runs of a sweep in MLflow: which of them holds which attempt at which run. Duplicates are deleted."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, final

from harness.config import RunConfig
from harness.measures import Measure
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import Span
from harness.tracking.experiment_runs import ExperimentRuns, children_filter
from harness.tracking.records import stated_checksums, truncated
from reports.contract import stored_run as names
from reports.contract.artifact_paths import local_path


@final
class Children:
    """The child runs of one parent: the newest attempt at each run of the sweep."""

    def __init__(self, runs: ExperimentRuns, parent_id: str, *, files_are_here: bool = False) -> None:
        """`files_are_here`: the store keeps files on this machine, so that a missing one can be seen."""
        self._runs, self._parent_id, self._files_are_here = runs, parent_id, files_are_here
        self._newest: dict[str, tuple[int, str]] = {}  # run key -> begin of the attempt, run id
        self._ended: dict[str, Span | None] = {}  # run id of each stored run -> its span, None if it has no end
        self._unread: set[str] = set()  # keys of stored runs that were not read yet

    def read_later(self, keys: set[str]) -> None:
        """Read each of these runs only when it is written to."""
        self._unread = keys

    def read(self, more: str = "") -> None:
        """Read the attempts that the store has, and the ends of those that have ended.

        Of several runs with one key, left by an answer that was lost, the newest attempt stays, the ended one first.
        A run whose tags somebody edited or deleted counts as older than any attempt; one without a key is a duplicate.
        """
        duplicates = []
        for run in self._runs.search(children_filter(self._parent_id) + more):
            tags, run_id = run.data.tags, run.info.run_id
            key = tags.get(names.TAG_RUN_KEY)
            if key is None:
                duplicates.append(run_id)
                continue
            begun_ms, last_ms = _milliseconds(tags.get(names.TAG_ATTEMPT)), _milliseconds(tags.get(names.TAG_END))
            ended = run.info.status != "RUNNING" and last_ms >= 0
            ended = ended and not (self._files_are_here and lacks_files(run))
            self._ended[run_id] = Span(begun_ms, last_ms) if ended else None
            mine = begun_ms, run_id
            other = self._newest.get(key, mine)
            worse, better = sorted((other, mine), key=lambda each: (each[0], self._ended[each[1]] is not None))
            self._newest[key] = better
            if worse != better:
                duplicates.append(worse[1])
        self._runs.delete(duplicates)

    def spans(self) -> dict[str, Span | None]:
        """Return what was read of each run, by key."""
        return {key: self._ended.get(run_id) for key, (_, run_id) in self._newest.items()}

    def was_stored(self, run_id: str) -> bool:
        """Return whether the store had this run before."""
        return run_id in self._ended

    def find_or_create(self, run: RunConfig, attempt: Attempt, tags: Mapping[str, str]) -> str:
        """Return the id of the child run of an attempt, created if there is none.

        A child run of an older attempt is deleted.
        """
        if run.key in self._unread:
            self.read(f" AND tags.{names.TAG_RUN_KEY} = '{run.key}'")
            self._unread.remove(run.key)
        begun_ms, child = self._newest.get(run.key, (0, ""))
        if child and begun_ms != attempt.begun_ms:
            self._runs.delete([child])
        if not child or begun_ms != attempt.begun_ms:
            child = self._create(run, attempt, tags)
            self._newest[run.key] = attempt.begun_ms, child
        return child

    def _create(self, run: RunConfig, attempt: Attempt, tags: Mapping[str, str]) -> str:
        own = {
            names.TAG_PARENT: self._parent_id,
            names.TAG_KIND: names.KIND_RUN,
            names.TAG_SWEEP: self._parent_id,
            names.TAG_LABEL: run.label,
            names.TAG_ESTIMATOR_LABEL: run.estimator.label,
            names.TAG_SETTING: run.setting.to_json(),
            names.TAG_TASK: run.task_name,
            names.TAG_MEASURES: measures_to_json(run.measures),
            names.TAG_STATUS: names.RUNNING,
            names.TAG_ATTEMPT: str(attempt.begun_ms),
            **({names.TAG_ROLE: run.role, names.TAG_COMPETITOR: run.competitor} if run.role else {}),
        }
        fitting = {name: truncated(value, 8000) for name, value in {**tags, **own}.items()}
        return self._runs.create(truncated(run.name, 250), fitting, attempt.begun_ms)

    def delete_duplicates(self) -> None:
        """Delete runs that MLflow created twice because the first answer was lost."""
        known = {run_id for _, run_id in self._newest.values()}
        is_running = f"tags.`{names.TAG_STATUS}` = '{names.RUNNING}'"
        running = self._runs.search(f"{children_filter(self._parent_id)} AND {is_running}")
        self._runs.delete({run.info.run_id for run in running} - known)


def measures_to_json(measures: Iterable[Measure]) -> str:
    """Return the declaration of measures as it is stored."""
    rows = [
        {
            "name": one.name,
            "title": one.shown,
            "unit": one.unit,
            "better": one.better,
            "band": one.band,
            "metric": one.metric,
            "validation": one.validation_metric,
        }
        for one in measures
    ]
    return json.dumps(rows, ensure_ascii=False)


def lacks_files(run: Any) -> bool:
    """Return whether a local run lacks a file that its journal can always replace."""
    folder = local_path(run.info.artifact_uri)
    if folder is None:
        return False
    replaceable = (name for name in stated_checksums(run.data.tags) if "/" not in name)  # a journal may lack pictures
    return any(not folder.joinpath(name).is_file() for name in replaceable)


def _milliseconds(tag: str | None) -> int:
    """Return the milliseconds that a tag states; -1 if there is none, or it is no number."""
    try:
        return int(tag or "")
    except ValueError:
        return -1
