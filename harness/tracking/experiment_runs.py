"""The runs of one MLflow experiment: searched, created and deleted.

The answer to a creation may be lost. MLflow then asks for it again, and the store has the run twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from harness.tracking.logged_models import delete_models
from reports.contract.stored_run import TAG_STORED, TAG_SWEEP, TAG_SWEEP_ID


def children_filter(parent_id: str) -> str:
    """Return the filter that finds the child runs of a sweep."""
    return f"tags.`{TAG_SWEEP}` = '{parent_id}'"


@final
class ExperimentRuns:
    """The runs of one experiment."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id

    def search(self, filter_string: str, page: int = 1000, view: int = ViewType.ACTIVE_ONLY) -> Iterator[Any]:
        """Yield all runs that the filter finds, asking for one page after the other."""
        token: str | None = None
        while token is None or token:
            found = self._client.search_runs(
                [self._experiment_id], filter_string, run_view_type=view, max_results=page, page_token=token
            )
            yield from found
            token = found.token or ""

    def create(self, name: str, tags: Mapping[str, str], begun_ms: int | None = None) -> str:
        """Create a run and return its id."""
        return str(self._client.create_run(self._experiment_id, begun_ms, dict(tags), run_name=name).info.run_id)

    def parents(self, sweep_id: str, view: int = ViewType.ACTIVE_ONLY) -> list[str]:
        """Return the ids of the parent runs of a sweep; there may be two, if the answer to a creation was lost."""
        return [run.info.run_id for run in self.search(f"tags.`{TAG_SWEEP_ID}` = '{sweep_id}'", view=view)]

    def find_parent(self, sweep_id: str) -> str | None:
        """Return the parent of a sweep, restored if somebody deleted it; of several, one with children if possible.

        The others are deleted, with their children.
        """
        active, deleted = self.parents(sweep_id), self.parents(sweep_id, ViewType.DELETED_ONLY)
        found = active or deleted
        if not found:
            return None
        kept = found[0]
        if len(found) > 1:
            kept = next((each for each in found if any(self.search(children_filter(each), 1))), kept)
        if not active:
            self._client.restore_run(kept)
            self._client.set_tag(kept, TAG_STORED, "", synchronous=True)  # its runs may have been deleted with it
        others = [each for each in (*active, *deleted) if each != kept]
        self.delete([run.info.run_id for each in others for run in self.search(children_filter(each))])
        self.delete(each for each in active if each != kept)
        return kept

    def delete(self, run_ids: Iterable[str]) -> None:
        """Delete runs and their models."""
        for run_id in run_ids:
            delete_models(self._client, run_id)
            self._client.delete_run(run_id)
