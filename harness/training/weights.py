"""The trained weights of a finished run, as a message from the worker to the driver.

Torch saves tensors and numbers only, so they are read without pickle.
"""

import io

import torch

from harness.config import RunConfig
from harness.events import Weights
from harness.training.state import State

FORMAT = 1


def save(run: RunConfig, state: State) -> Weights:
    """Return the weights of the backbone and the estimator as they are, with the estimator's last temperatures."""
    saved = {
        "format": FORMAT,
        "run_key": run.key,
        "vae": state.vae.state_dict(),
        "estimator": state.estimator.state_dict(),
        "temperatures": state.temperatures(),
    }
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return Weights(state.step, buffer.getvalue())
