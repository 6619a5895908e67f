"""Trained models, loaded without pickle from the weights that `harness run --save-models` keeps.

run = RunConfig.from_json(Path("config.json").read_text())
vae, estimator = load_model(Path("weights.pt"), run)
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
from harness.training.state import start
from harness.training.vae import CategoricalVAE
from harness.training.weights import FORMAT


class ModelError(UserError):
    """A file without the weights of this run."""


def load_model(
    path: Path, run: RunConfig, registry: Mapping[str, type[Estimator]] = REGISTRY, *, device: str = "cpu"
) -> tuple[CategoricalVAE, Estimator]:
    """Return backbone and estimator of a run with the weights in a file, ready for evaluation.

    Raises ModelError if the file has the weights of another run or none, and OSError if it cannot be read.
    """
    saved = _read(path, run)
    state = start(run, registry, sizes(run.data).n_pixels, torch.device(device))
    try:
        state.vae.load_state_dict(saved["vae"])
        state.estimator.load_state_dict(saved["estimator"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got: {first_line(error)}") from error
    for key, value in saved["temperatures"].items():
        setattr(state.estimator, key, value)
    return state.vae.eval(), state.estimator.eval()


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
