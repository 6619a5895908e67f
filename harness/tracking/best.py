"""Which child run is the best of its estimator, as a tag: one filter then finds all of them."""

from collections.abc import Mapping

from mlflow.tracking import MlflowClient

from harness.tracking.children import Runs, children_of
from reports.contract.stored_run import TAG_BEST, TAG_RUN_KEY


def tag_best(client: MlflowClient, runs: Runs, parent_id: str, best: Mapping[str, str]) -> None:
    """Let the tag be on these runs alone; `best` has a run key by the name of an estimator.

    Only what changes is asked for and written, so that a sweep of 10,000 runs costs no more than one of ten.
    """
    missing = dict(best)
    for run in runs.search(f"{children_of(parent_id)} AND tags.`{TAG_BEST}` != ''"):
        name, key = run.data.tags[TAG_BEST], run.data.tags.get(TAG_RUN_KEY, "")
        if name in best and best[name] == key:
            missing.pop(name, None)
        else:
            client.delete_tag(run.info.run_id, TAG_BEST)
    for name, key in missing.items():
        for run in runs.search(f"{children_of(parent_id)} AND tags.{TAG_RUN_KEY} = '{key}'"):
            client.set_tag(run.info.run_id, TAG_BEST, name, synchronous=True)
