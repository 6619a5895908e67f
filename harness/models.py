"""The trained weights of a finished run, kept where a sweep is asked to (`harness run --save-models`).

They are what torch saves of tensors and numbers, without pickle, and are read with `weights_only`. A worker sends them
as a message; the driver keeps them as `models/<run key>.pt` in the sweep's folder, and their checksum in the journal.

    run = RunConfig.from_json(Path("config.json").read_text())
    vae, estimator = load_model(Path("weights.pt"), run)
"""

import hashlib
import io
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from estimators import REGISTRY, Estimator
from harness.config import RunConfig
from harness.datasets.catalogue import lookup
from harness.events import Weights
from harness.vae import CategoricalVAE

if TYPE_CHECKING:
    from harness.train import State

FORMAT = 1


class ModelError(Exception):
    """A file has no weights of this run; the message is one line."""


def save(run: RunConfig, state: "State") -> Weights:
    """Return the weights of the backbone and the estimator as they are, with the estimator's last temperatures."""
    saved = {
        "format": FORMAT,
        "run_key": run.key,
        "vae": state.vae.state_dict(),
        "estimator": state.estimator.state_dict(),
        "temperatures": {key: float(getattr(state.estimator, key)) for key in state.estimator.temperatures},
    }
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return Weights(state.step, buffer.getvalue())


def load_model(
    path: Path, run: RunConfig, registry: Mapping[str, type[Estimator]] = REGISTRY, *, device: str = "cpu"
) -> tuple[CategoricalVAE, Estimator]:
    """Return backbone and estimator of a run with the weights in a file, ready to be evaluated.

    Raises ModelError where the file has weights of another run or none, and OSError where it cannot be read.
    """
    from harness.train import start  # which imports this module

    saved = _read(path, run)
    state = start(run, registry, math.prod(lookup(run.data.name).image_shape), torch.device(device))
    try:
        state.vae.load_state_dict(saved["vae"])
        state.estimator.load_state_dict(saved["estimator"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got: {str(error).splitlines()[0]}") from error
    for key, value in saved["temperatures"].items():
        setattr(state.estimator, key, value)
    return state.vae.eval(), state.estimator.eval()


def _read(path: Path, run: RunConfig) -> dict[str, Any]:
    try:
        saved: Any = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises what it pleases for what is no such file
        raise ModelError(f"{path}: expected weights that torch saved, got: {type(error).__name__}.") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got another file.")
    if saved.get("run_key") != run.key:
        raise ModelError(f"{path}: expected the weights of run {run.key}, got those of run {saved.get('run_key')}.")
    return saved


@final
class ModelFiles:
    """The weights of finished runs, as files of the sweep's folder, written by the driver alone."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._folder, self._say = folder / "models", say
        self._is_failing = False

    def keep(self, run_key: str, weights: Weights) -> bool:
        """Write a file; return whether that went well. A disk that refuses it is said once, and stops nothing."""
        path = self._path(run_key)
        partial = path.with_suffix(".partial")
        try:
            self._folder.mkdir(exist_ok=True)
            partial.write_bytes(weights.content)
            os.replace(partial, path)
        except OSError as error:
            if not self._is_failing:
                self._say(f"models: {self._folder} could not be written to ({error.strerror}); the sweep goes on.")
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def read(self, run_key: str, sha256: str) -> bytes | None:
        """Return the weights with that checksum, or None where they are missing or damaged."""
        try:
            content = self._path(run_key).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == sha256 else None

    def discard(self, run_key: str) -> None:
        """Forget the weights of a former attempt."""
        with suppress(OSError):
            self._path(run_key).unlink(missing_ok=True)

    def _path(self, run_key: str) -> Path:
        return self._folder / f"{Path(run_key).name}.pt"
