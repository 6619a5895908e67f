"""The worked example of a task as a sweep of a few hundred examples: its plug-in, a module of it, a grid, results."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from mlflow.tracking import MlflowClient
from paths import ROOT

from harness.storage.sweep_state import is_measured

EXAMPLE = ROOT / "experiments" / "plugins" / "hard_gate.py"
N_RUNS = 8
GRID = """
name: {name}
question: Which estimator trains a hard gate?
task: {{name: hard_gate, n_experts: [2, 4]}}
estimators: [straight_through, gumbel_softmax, {{name: rloo, n_samples: 2}}, nvil]
training: {{epochs: {epochs}, batch_size: 50, lr: 0.01}}
diagnostics: {{every: 1, basket: [rloo], resamples: 64, probe: 5}}
seeds: [0]
"""
FLEETING = {"harness.attempt", "harness.end", "harness.starts", "harness.sweep", "harness.sha256", "harness.error"}
"""Tags of when and how often a run was made; the checksums include those of times."""


def write_example(folder: Path) -> Path:
    """Write the worked example with fewer examples, whose number a module beside it says; return the plug-in."""
    text = EXAMPLE.read_text()
    for old, new in (
        ("from torch import nn\n", "from torch import nn\n\nfrom gate_sizes import SPLIT\n"),
        ("3000", "sum(SPLIT)"),
        ("[2000, 500, 500]", "SPLIT"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "gate_sizes.py").write_text("SPLIT = [200, 50, 50]\n")
    (folder / EXAMPLE.name).write_text(text)
    return folder / EXAMPLE.name


def write_grid(path: Path, *, epochs: int) -> Path:
    """Write a grid of `N_RUNS` runs under the name of its file."""
    path.write_text(GRID.format(name=path.stem, epochs=epochs))
    return path


def stored_content(out: Path, name: str) -> dict[str, Any]:
    """All that MLflow has of each run, by its key, but times and where it is."""
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == name]
    runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'run'", max_results=1000)
    assert len({run.data.tags["run_key"] for run in runs}) == len(runs)
    return {run.data.tags["run_key"]: dict(_content(client, run)) for run in runs}


def _content(client: MlflowClient, run: Any) -> Iterator[tuple[str, Any]]:
    yield "params", run.data.params
    yield "tags", {k: v for k, v in run.data.tags.items() if k not in FLEETING and not k.startswith("mlflow.parent")}
    names = {name for name in run.data.metrics if not is_measured(name)}
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    yield "metrics", {name: [(one.step, one.value) for one in found] for name, found in histories.items()}
    folder = Path(unquote(urlsplit(run.info.artifact_uri).path))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    stated = json.loads(run.data.tags["harness.sha256"])
    assert stated == {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    files.pop("provenance.json")
    for epoch in (history := json.loads(files.pop("history.json"))):
        epoch.pop("elapsed_s")
    yield "history", [{name: value for name, value in epoch.items() if not is_measured(name)} for epoch in history]
    yield "weights", _plain(torch.load(io.BytesIO(files.pop("model/weights.pt")), weights_only=True))
    yield "files", files


def _plain(saved: Any) -> Any:
    """Return tensors as lists, so that == compares them."""
    if isinstance(saved, dict):
        return {key: _plain(value) for key, value in saved.items()}
    return saved.tolist() if isinstance(saved, torch.Tensor) else saved
