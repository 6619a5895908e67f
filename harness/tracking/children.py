"""Which child run of MLflow holds which run of a sweep: found, made, and those deleted that are there twice.

The answer to a creation may be lost; MLflow then asks for it again, and the store has the run a second time.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from harness.config import RunConfig
from harness.storage.journal import Attempt
from harness.storage.sweep_state import Span
from harness.tracking.models import delete_models
from harness.tracking.records import fitting, stated_sums
from reports.contract.places import local_path
from reports.contract.stored_run import (
    KIND_RUN,
    RUNNING,
    TAG_ATTEMPT,
    TAG_END,
    TAG_ESTIMATOR_LABEL,
    TAG_KIND,
    TAG_LABEL,
    TAG_PARENT,
    TAG_RUN_KEY,
    TAG_SETTING,
    TAG_STATUS,
    TAG_STORED,
    TAG_SWEEP,
    TAG_SWEEP_ID,
)


def children_of(parent_id: str) -> str:
    """Return the filter that finds the child runs of a sweep."""
    return f"tags.`{TAG_SWEEP}` = '{parent_id}'"


@final
class Runs:
    """The runs of one experiment."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id

    def search(self, filter_string: str, page: int = 1000, view: int = ViewType.ACTIVE_ONLY) -> Iterator[Any]:
        """Yield all that the filter finds, asked for by so many at a time."""
        token: str | None = None
        while token is None or token:
            found = self._client.search_runs(
                [self._experiment_id], filter_string, run_view_type=view, max_results=page, page_token=token
            )
            yield from found
            token = found.token or ""

    def create(self, name: str, tags: Mapping[str, str], begun_ms: int | None = None) -> str:
        """Return the id of a new run."""
        return str(self._client.create_run(self._experiment_id, begun_ms, dict(tags), run_name=name).info.run_id)

    def parents(self, sweep_id: str, view: int = ViewType.ACTIVE_ONLY) -> list[str]:
        """Return the ids of the parent runs of a sweep; there may be two where the answer to a creation was lost."""
        return [run.info.run_id for run in self.search(f"tags.`{TAG_SWEEP_ID}` = '{sweep_id}'", view=view)]

    def only_parent(self, sweep_id: str) -> str | None:
        """Return the parent of a sweep, the one with children if any has, brought back if somebody deleted it.

        Other parents are deleted, with their children.
        """
        active, deleted = self.parents(sweep_id), self.parents(sweep_id, ViewType.DELETED_ONLY)
        found = active or deleted
        if not found:
            return None
        kept = found[0]
        if len(found) > 1:
            kept = next((each for each in found if any(self.search(children_of(each), 1))), kept)
        if not active:
            self._client.restore_run(kept)
            self._client.set_tag(kept, TAG_STORED, "", synchronous=True)  # its runs may have been deleted with it
        others = [each for each in (*active, *deleted) if each != kept]
        self.delete([run.info.run_id for each in others for run in self.search(children_of(each))])
        self.delete(each for each in active if each != kept)
        return kept

    def delete(self, run_ids: Iterable[str]) -> None:
        """Delete runs, and the models that they made."""
        for run_id in run_ids:
            delete_models(self._client, run_id)
            self._client.delete_run(run_id)


@final
class Children:
    """The child runs of one parent: the newest attempt at each run of the sweep."""

    def __init__(self, runs: Runs, parent_id: str, *, files_are_here: bool = False) -> None:
        """`files_are_here`: the store keeps files on this machine, so that a missing one can be seen."""
        self._runs, self._parent_id, self._files_are_here = runs, parent_id, files_are_here
        self._newest: dict[str, tuple[int, str]] = {}  # by run key: the attempt's begin, and its run id
        self._ended: dict[str, Span | None] = {}  # by run id, of those that were read; None if they had no end
        self._unread: set[str] = set()  # keys of runs that the store has, but of which was not asked yet

    def read_later(self, keys: set[str]) -> None:
        """Ask for each of these runs when it is written to."""
        self._unread = keys

    def read(self, more: str = "") -> None:
        """Take note of the attempts that the store has, and until when it has those that have ended.

        Of several runs with one key, left by an answer that was lost, the newest attempt stays, the ended one first.
        One whose tags somebody has edited or deleted counts as older than any attempt; without a key it is a double.
        """
        doubles = []
        for run in self._runs.search(children_of(self._parent_id) + more):
            tags, run_id = run.data.tags, run.info.run_id
            key = tags.get(TAG_RUN_KEY)
            if key is None:
                doubles.append(run_id)
                continue
            begun_ms, last_ms = _number(tags.get(TAG_ATTEMPT)), _number(tags.get(TAG_END))
            ended = run.info.status != "RUNNING" and last_ms >= 0
            ended = ended and not (self._files_are_here and lacks_files(run))
            self._ended[run_id] = Span(begun_ms, last_ms) if ended else None
            mine = begun_ms, run_id
            other = self._newest.get(key, mine)
            worse, better = sorted((other, mine), key=lambda each: (each[0], self._ended[each[1]] is not None))
            self._newest[key] = better
            if worse != better:
                doubles.append(worse[1])
        self._runs.delete(doubles)

    def spans(self) -> dict[str, Span | None]:
        """Return what was read of each run, by key."""
        return {key: self._ended.get(run_id) for key, (_, run_id) in self._newest.items()}

    def was_read(self, run_id: str) -> bool:
        """Return whether the store had this run before."""
        return run_id in self._ended

    def of(self, run: RunConfig, attempt: Attempt, tags: Mapping[str, str]) -> str:
        """Return the id of the child run of an attempt, made if there is none; one of an older attempt is deleted."""
        if run.key in self._unread:
            self.read(f" AND tags.{TAG_RUN_KEY} = '{run.key}'")
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
            TAG_PARENT: self._parent_id,
            TAG_KIND: KIND_RUN,
            TAG_SWEEP: self._parent_id,
            TAG_LABEL: run.label,
            TAG_ESTIMATOR_LABEL: run.estimator.label,
            TAG_SETTING: run.setting.to_json(),
            TAG_STATUS: RUNNING,
            TAG_ATTEMPT: str(attempt.begun_ms),
        }
        fit = {name: fitting(value, 8000) for name, value in {**tags, **own}.items()}
        return self._runs.create(fitting(run.name, 250), fit, attempt.begun_ms)

    def delete_doubles(self) -> None:
        """Delete what the store created though its answer was lost, so that MLflow asked it a second time."""
        known = {run_id for _, run_id in self._newest.values()}
        running = self._runs.search(f"{children_of(self._parent_id)} AND tags.`{TAG_STATUS}` = '{RUNNING}'")
        self._runs.delete({run.info.run_id for run in running} - known)


def lacks_files(run: Any) -> bool:
    """Return whether a file of a run on this machine is gone that its journal can always replace."""
    folder = local_path(run.info.artifact_uri)
    if folder is None:
        return False
    replaceable = (name for name in stated_sums(run.data.tags) if "/" not in name)  # pictures may be lost there too
    return any(not folder.joinpath(name).is_file() for name in replaceable)


def _number(tag: str | None) -> int:
    """Return the milliseconds that a tag states; -1 where there is none, or one that is no number."""
    try:
        return int(tag or "")
    except ValueError:
        return -1
