"""The best finished run of each estimator, marked by a tag, so that one filter finds all of them."""

from collections.abc import Mapping

from mlflow.tracking import MlflowClient

from harness.tracking.experiment_runs import ExperimentRuns, children_filter
from reports.contract.stored_run import TAG_BEST, TAG_RUN_KEY


def tag_best(client: MlflowClient, runs: ExperimentRuns, parent_id: str, best: Mapping[str, str]) -> None:
    """Set the tag on these runs alone; `best` maps the name of an estimator to a run key.

    Only what changes is read and written, so that a sweep of 10,000 runs costs no more than one of ten.
    """
    missing = dict(best)
    for run in runs.search(f"{children_filter(parent_id)} AND tags.`{TAG_BEST}` != ''"):
        name, key = run.data.tags[TAG_BEST], run.data.tags.get(TAG_RUN_KEY, "")
        if name in best and best[name] == key:
            missing.pop(name, None)
        else:
            client.delete_tag(run.info.run_id, TAG_BEST)
    for name, key in missing.items():
        for run in runs.search(f"{children_filter(parent_id)} AND tags.{TAG_RUN_KEY} = '{key}'"):
            client.set_tag(run.info.run_id, TAG_BEST, name, synchronous=True)
