"""Checkpoints: all that a run needs to go on after an epoch and end with the same bits as without an interruption.

A checkpoint is a message: its label as one line of JSON, then the state as torch saves it. The worker sends it to the
driver, which keeps the newest one of each run in a checksummed file, so no disk needs to be shared. The curves are in
the journal, which has each epoch before its checkpoint.
"""

import io
import json
from typing import Any, NamedTuple

import torch

from harness.config import RunConfig
from harness.devices import peak_memory_mb
from harness.events import Checkpoint
from harness.provenance import code_version, provenance
from harness.training import seeding
from harness.training.state import Best, State, parameters, set_parameters

FORMAT = 2


class Label(NamedTuple):
    """What a checkpoint belongs to. `made_by` names the source code and torch: others may give other bits."""

    format: int
    run_key: str
    epoch: int
    made_by: list[str | None]


def save(run: RunConfig, state: State) -> Checkpoint:
    """Return the state of a run after an epoch, and that of torch's generators."""
    device = torch.device(run.device)
    saved = {
        "step": state.step,
        "elapsed_s": state.elapsed_s,
        "step_s": torch.tensor(state.step_s, dtype=torch.float64),
        "peak_mb": max(state.peak_mb, peak_memory_mb(device)),
        **parameters(state),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "log_tau": state.learned_tau.log_tau.detach() if state.learned_tau else None,
        "best": tuple(state.best) if state.best else None,
        "generators": seeding.noise_state(device),
    }
    label = Label(FORMAT, run.key, state.epoch, list(code_version(provenance())))
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return Checkpoint(state.epoch, json.dumps(label._asdict()).encode() + b"\n" + buffer.getbuffer())


def restore(run: RunConfig, state: State, content: bytes) -> bool:
    """Restore the state of a checkpoint. Return False, and change nothing, if it is of another run or other code."""
    label, body = split_label(content)
    if label.format != FORMAT or label.run_key != run.key or label.made_by != list(code_version(provenance())):
        return False
    device = torch.device(run.device)
    saved: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    set_parameters(state, saved)
    if state.learned_tau:
        with torch.no_grad():
            state.learned_tau.log_tau.copy_(saved["log_tau"])
    for optimizer, optimizer_state in zip(state.optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(optimizer_state)
    state.best = Best(*saved["best"]) if saved["best"] else None
    state.epoch, state.step, state.step_s = label.epoch, saved["step"], saved["step_s"].tolist()
    state.elapsed_s += saved["elapsed_s"]
    state.peak_mb = saved["peak_mb"]
    seeding.restore_noise(saved["generators"], device)
    return True


def split_label(content: bytes) -> tuple[Label, bytes]:
    """Return the label of a checkpoint, and its state as torch saved it."""
    line, _, body = content.partition(b"\n")
    return Label(**json.loads(line)), body
