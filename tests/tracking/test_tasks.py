"""A run of a task in MLflow: its tags, params and metrics, and no data set unless it takes images."""

import json
from pathlib import Path

from mlflow.tracking import MlflowClient
from small_tasks import SMALL_REGISTRY, grid_of
from tracked_runs import open_sweep

from harness.config import RunConfig
from harness.events import Record
from harness.storage.attempt import Attempt
from harness.tracking import Tracker
from harness.train import train

TEXT = "task: [hard_gate, categorical_vae]\nestimators: [rloo]\nseeds: [0]\ntraining: {epochs: 2, batch_size: 16}\n"
TEXT += "data: {train_size: 32}\nmodel: {n_latents: 2, n_categories: 3, hidden: [4]}\n"
TEXT += "evaluation: {bound_samples: 2, n_images: 1}\n"


def test_a_run_of_a_task_is_stored_with_its_measures_and_nothing_of_the_vae(out: Path) -> None:
    grid = grid_of(TEXT)
    tracker = Tracker(f"sqlite:///{out / 'mlflow.db'}", out=out)
    open_sweep(tracker, grid)
    for run in grid.runs:
        attempt = Attempt([Record(run.key, 1000 + i, e) for i, e in enumerate(train(run, SMALL_REGISTRY))])
        tracker.write(attempt.records, attempt)
    client = MlflowClient(tracking_uri=tracker.uri)
    children = client.search_runs([tracker.experiment_id], "tags.`harness.kind` = 'run'")
    by_task = {run.data.tags["task"]: run for run in children}
    assert by_task.keys() == {"hard_gate", "categorical_vae"}
    gate, vae = by_task["hard_gate"], by_task["categorical_vae"]
    assert json.loads(gate.data.tags["harness.measures"]) == [
        {"name": "accuracy", "title": "accuracy", "unit": "", "better": "higher", "band": None,
         "metric": "test/accuracy", "validation": "val/accuracy"},
        {"name": "busiest", "title": "share of the busiest expert", "unit": "", "better": "lower", "band": None,
         "metric": "test/busiest", "validation": "val/busiest"},
    ]  # fmt: skip
    measures = json.loads(vae.data.tags["harness.measures"])
    assert [(one["metric"], one["validation"], one["band"]) for one in measures] == [
        ("test/neg_elbo", "val/loss", 0.5),
        ("test/neg_bound", "val/loss", 0.5),
    ]
    assert json.loads(gate.data.tags["harness.setting"])["axes"] == [["task", "hard_gate"]]
    assert gate.data.params["task.n_experts"] == "3"
    assert not [name for name in gate.data.params if name.startswith(("model.", "data."))]
    assert not [name for name in vae.data.params if name.startswith("task.")]
    assert {"test/accuracy", "test/loss", "train/balance", "val/accuracy"} <= gate.data.metrics.keys()
    assert not gate.inputs.dataset_inputs
    assert len(vae.inputs.dataset_inputs) == 2
    config = Path(client.download_artifacts(gate.info.run_id, "config.json")).read_text()
    assert RunConfig.from_json(config) == grid.runs[0]
