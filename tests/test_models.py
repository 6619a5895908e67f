"""Trained weights are kept on request in file, journal and store, and load as the same model."""

import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from command_line import grid_file, harness
from mlflow.tracking import MlflowClient
from outages import uri_of

from estimators import REGISTRY
from harness.config import RunConfig
from harness.events import Finished, Record, Weights
from harness.models import ModelError, load_model
from harness.storage.weight_files import WeightFiles
from harness.train import train
from harness.training.evaluate import test_metrics as final_metrics
from harness.training.run_controls import RunControls
from harness.training.state import start

GRID = (
    "name: kept\ndata: {train_size: 100}\nmodel: {n_latents: 2, n_categories: 3, hidden: [8]}\n"
    "training: {epochs: 1, batch_size: 50}\nevaluation: {bound_samples: 0, n_images: 1}\n"
    "estimators: [straight_through, {name: rloo, n_samples: 2}]\nseeds: [0]\n"
)


def trained(run: RunConfig) -> tuple[Weights, Finished]:
    *_, weights, end = train(run, REGISTRY, controls=RunControls(keeps_model=True))
    assert isinstance(weights, Weights)
    assert isinstance(end, Finished)
    return weights, end


@pytest.mark.parametrize("estimator", ["gumbel_softmax", "relax", "straight_through"])
def test_a_loaded_model_has_the_test_metrics_of_its_run(tiny_run, tmp_path: Path, estimator: str) -> None:
    run = tiny_run(estimator)
    weights, end = trained(run)
    path = tmp_path / "weights.pt"
    path.write_bytes(weights.content)
    vae, loaded = load_model(path, run)
    assert not vae.training
    state = start(run, REGISTRY, torch.device("cpu"))
    state.task.vae, state.estimators = vae, {"z": loaded}
    again, _ = final_metrics(run, state)
    assert again == {name: end.metrics[name] for name in again}


def test_no_weights_are_returned_unless_asked_for(tiny_run) -> None:
    assert not any(isinstance(event, Weights) for event in train(tiny_run(), REGISTRY))


def test_weights_of_another_run_or_no_weights_are_one_line(tiny_run, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(trained(tiny_run())[0].content)
    with pytest.raises(ModelError, match=r"^[^\n]*expected the weights of run \w+, got those of run \w+\.$"):
        load_model(path, tiny_run(seed=1))
    for content in (b"", b"no weights", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"^[^\n]*expected weights that torch saved, got: \w+\.$"):
            load_model(path, tiny_run())
    torch.save([1], path)
    with pytest.raises(ModelError, match=r"got another file\.$"):
        load_model(path, tiny_run())


def test_a_record_of_weights_travels_whole_and_is_journaled_without_them() -> None:
    record = Record("k", 1, Weights(3, b"a\nb"))
    assert Record.from_bytes(record.to_bytes()) == record
    assert Record.from_json(record.to_json()).event == Weights(3, b"", hashlib.sha256(b"a\nb").hexdigest())


def test_a_damaged_file_counts_as_lost(tmp_path: Path) -> None:
    files, weights = WeightFiles(tmp_path), Weights(1, b"abc")
    assert files.save("k", weights)
    assert files.read("k", weights.sha256) == b"abc"
    (tmp_path / "models" / "k.pt").write_bytes(b"abd")
    assert files.read("k", weights.sha256) is None
    files.discard("k")
    assert files.read("k", weights.sha256) is None


def test_a_disk_that_refuses_weights_is_reported_once(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "models").write_text("a file")
    files = WeightFiles(tmp_path, said.append)
    assert [files.save("k", Weights(1, b"a")) for _ in range(2)] == [False, False]
    assert len(said) == 1
    assert "the sweep goes on" in said[0]


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_keeps_the_weights_of_its_runs(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path, GRID, "kept.yaml")
    done = harness("run", "--grid", grid, "--out", out, "--workers", "1", "--save-models")
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(tracking_uri=uri_of(out))
    experiment = client.get_experiment_by_name("kept").experiment_id
    runs = client.search_runs([experiment], "tags.`harness.kind` = 'run'")
    assert len(runs) == len(client.search_logged_models([experiment])) == 2
    for run in runs:
        folder = Path(urlsplit(run.info.artifact_uri).path)
        config = RunConfig.from_json((folder / "config.json").read_text())
        file = out / "kept" / "models" / f"{config.key}.pt"
        stored = folder / "model" / "weights.pt"
        assert stored.read_bytes() == file.read_bytes()
        stated = json.loads(run.data.tags["harness.sha256"])
        assert stated["model/weights.pt"] == hashlib.sha256(file.read_bytes()).hexdigest()
        load_model(stored, config)
    page = harness("report", "--from", out)
    assert page.returncode == 0, page.stderr
