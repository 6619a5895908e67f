"""The trained weights of a finished run, as a message from the worker to the driver.

Torch saves tensors and numbers only, so they are read without pickle.
"""

import io
from collections.abc import Iterator

import torch

from estimators import Estimator
from harness.config import RunConfig
from harness.events import Weights
from harness.training.state import State

FORMAT = 1


def key_of(run: RunConfig) -> str:
    """Return the key of the weights of the model."""
    return "task" if run.task else "vae"


def by_layer(state: State) -> Iterator[tuple[str, Estimator]]:
    """Yield the estimators, each with the end of its key: empty for a task of one layer."""
    for name, estimator in state.estimators.items():
        yield (f".{name}" if len(state.estimators) > 1 else ""), estimator


def save(run: RunConfig, state: State) -> Weights:
    """Return the weights of the task and its estimators as they are, with the last temperatures."""
    saved = {
        "format": FORMAT,
        "run_key": run.key,
        key_of(run): state.task.network().state_dict(),
        **{f"estimator{suffix}": one.state_dict() for suffix, one in by_layer(state)},
        "temperatures": state.temperatures(),
    }
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return Weights(state.step, buffer.getvalue())
