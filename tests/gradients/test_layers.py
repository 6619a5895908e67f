"""Gradient quality of a task with two layers, from training to the report."""

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import grid_file, harness
from mlflow.tracking import MlflowClient
from report_page import Page

GRID = """
name: layers
task: {name: structured_prediction, n_latents: 2, n_categories: 2}
data: {train_size: 50}
estimators: [{name: rloo, n_samples: 2}]
training: {epochs: 2, batch_size: 25}
evaluation: {bound_samples: 2, n_images: 1}
diagnostics: {every: 2, basket: [{name: gumbel_softmax, tau: 0.5}], resamples: 64, probe: 5}
seeds: [0]
"""


@pytest.mark.slow  # the truth of the first layer is a long average: 10 s, and a minute on a busy machine
@pytest.mark.usefixtures("undrawn")
def test_two_layers_are_measured_stored_and_reported(tmp_path: Path, out: Path) -> None:
    done = harness("run", "--grid", grid_file(tmp_path, GRID, "layers.yaml"), "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("layers")
    assert experiment is not None
    kinds = {run.data.tags["harness.kind"]: run for run in client.search_runs([experiment.experiment_id])}
    labels = json.loads(Path(client.download_artifacts(kinds["sweep"].info.run_id, "basket.json")).read_text())
    assert labels == {"gumbel_softmax-tau-0.5": "gumbel_softmax(tau=0.5)"}
    metrics = kinds["run"].data.metrics
    measured = {name.split("/")[1] for name in metrics if name.startswith("gradient/")}
    names = ("own", "gumbel_softmax-tau-0.5", "truth_error")
    assert measured == {f"{layer}.{name}" for layer in ("z1", "z2") for name in names}
    assert metrics["gradient/z1.truth_error"] > 0  # the cost of the first layer is noisy: an average
    assert metrics["gradient/z2.truth_error"] == 0
    assert metrics["gradient/z2.gumbel_softmax-tau-0.5/evaluations"] == 1

    done = harness("report", "--experiment", "layers", "--from", out, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stdout + done.stderr
    page = Page((tmp_path / "report" / "report.html").read_text())
    for layer in ("z1", "z2"):
        assert f"At the parameters of rloo(n_samples=2), layer {layer}: epoch 2" in page.text
    table = pd.read_csv(tmp_path / "report" / "tables" / "gradients.csv")
    assert list(table["estimator"]) == ["rloo(n_samples=2) (its own)", "gumbel_softmax(tau=0.5)"] * 4
