"""Trained models, loaded without pickle from the weights that `harness run --save-models` keeps.

run = RunConfig.from_json(Path("config.json").read_text())
model, estimator = load_model(Path("weights.pt"), run)
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from estimators import REGISTRY, Estimator
from harness.config import RunConfig
from harness.datasets.sizes import sizes
from harness.errors import UserError, first_line
from harness.tasks.splits import Splits
from harness.training.state import start
from harness.training.weights import FORMAT, by_layer, key_of


class ModelError(UserError):
    """A file without the weights of this run."""


def load_model(
    path: Path, run: RunConfig, registry: Mapping[str, type[Estimator]] = REGISTRY, *, device: str = "cpu"
) -> tuple[Any, Any]:
    """Return model and estimator of a run with the weights in a file, ready for evaluation.

    The model is a `CategoricalVAE`, or the task itself for a run of another task. Of a task with several layers the
    estimators are a mapping by layer. Raises ModelError if the file has the weights of another run or none, and OSError
    if it cannot be read.
    """
    saved = _read(path, run)
    state = start(run, registry, torch.device(device), None if run.task else _blank_images(run))
    try:
        state.task.network().load_state_dict(saved[key_of(run)])
        for suffix, estimator in by_layer(state):
            estimator.load_state_dict(saved[f"estimator{suffix}"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got: {first_line(error)}") from error
    for key, value in saved["temperatures"].items():
        state.set_temperature(key, value)
    for estimator in state.estimators.values():
        estimator.eval()
    return state.task.network().eval(), state.estimator if len(state.estimators) == 1 else state.estimators


def _blank_images(run: RunConfig) -> Splits:
    """Return one image of the sizes of the data, which need not be on this machine."""
    images = sizes(run.data)
    blank_ND = torch.zeros(1, images.n_pixels)
    return Splits(train=blank_ND, test=blank_ND, image_shape=images.image_shape)


def _read(path: Path, run: RunConfig) -> dict[str, Any]:
    try:
        saved: Any = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds of errors for other files
        raise ModelError(f"{path}: expected weights that torch saved, got: {type(error).__name__}.") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got another file.")
    if saved.get("run_key") != run.key:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got those of run {saved.get('run_key')}.")
    return saved
