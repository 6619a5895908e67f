"""The trained model of a run as MLflow's "logged model", with settings and results.

The weights are an artifact of the run; the model says which.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import LoggedModelOutput, Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from harness.config import RunConfig
from harness.events import Finished, Weights
from harness.storage.attempt import Attempt
from harness.tracking.files import failures_as_outages
from reports.contract.stored_run import CONFIG_FILE, TAG_LABEL, TAG_RUN_KEY, WEIGHTS_FILE

_LONGEST_PARAM = 500  # MLflow refuses longer params of a model
_ABSENT = re.compile(r"failed with error code (404|501) |ENDPOINT_NOT_FOUND")


def log_model(client: MlflowClient, run_id: str, run: RunConfig, attempt: Attempt) -> None:
    """Create the model of a finished run, or complete it. A server that knows no models gets none."""
    weights = next((r.event for r in attempt.records if isinstance(r.event, Weights)), None)
    end = attempt.records[-1]
    if weights is None or not isinstance(end.event, Finished):
        return
    with _models_may_be_unknown():
        stored = client.get_run(run_id)
        model_id = _find_or_create(client, stored, run)
        metrics = [Metric(name, value, end.time_ms, 0, model_id=model_id) for name, value in end.event.metrics.items()]
        client.log_batch(run_id, metrics=metrics, synchronous=True)
        _describe(client, model_id, run_id, weights)
        client.finalize_logged_model(model_id, "READY")
        if model_id not in model_ids(stored):
            client.log_outputs(run_id, [LoggedModelOutput(model_id, weights.step)])


def delete_models(client: MlflowClient, run_id: str) -> None:
    """Delete the models of a run that will be deleted."""
    for model_id in model_ids(client.get_run(run_id)):
        with _models_may_be_unknown():
            client.delete_logged_model(model_id)


def model_ids(run: Any) -> list[str]:
    """Return the ids of a run's models."""
    outputs = getattr(run, "outputs", None)
    return [model.model_id for model in outputs.model_outputs] if outputs is not None else []


def _find_or_create(client: MlflowClient, stored: Any, run: RunConfig) -> str:
    """Return the id of the run's model.

    If answers to creations were lost there are more: they are deleted.
    """
    experiment_id = stored.info.experiment_id
    found = client.search_logged_models([experiment_id], f"source_run_id = '{stored.info.run_id}'")
    first, *others = [model.model_id for model in found] or [""]
    for other in others:
        client.delete_logged_model(other)
    if first:
        return str(first)
    model = client.create_logged_model(
        experiment_id,
        name=re.sub(r"[/:%\"']", "-", run.name.replace(".", ","))[:200],
        source_run_id=stored.info.run_id,
        tags={TAG_RUN_KEY: run.key, TAG_LABEL: run.label[:_LONGEST_PARAM]},
        params={name: str(value)[:_LONGEST_PARAM] for name, value in run.flat().items()},
        model_type="CategoricalVAE" if run.task is None else run.task.name,
    )
    return str(model.model_id)


def _describe(client: MlflowClient, model_id: str, run_id: str, weights: Weights) -> None:
    facts = {
        "weights": f"runs:/{run_id}/{WEIGHTS_FILE}",
        "sha256": weights.sha256,
        "config": f"runs:/{run_id}/{CONFIG_FILE}",
        "load": "harness.models.load_model(path of the weights, RunConfig.from_json(text of the config))",
    }
    with TemporaryDirectory(prefix="harness-") as folder:
        Path(folder, "model.json").write_text(json.dumps(facts, indent=1))
        with failures_as_outages():
            client.log_model_artifacts(model_id, folder)


@contextmanager
def _models_may_be_unknown() -> Iterator[None]:
    """Ignore that a server older than MLflow 3 knows no models, or that one is already gone."""
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() not in (404, 501) and not _ABSENT.search(str(error)):  # type: ignore[no-untyped-call]
            raise
