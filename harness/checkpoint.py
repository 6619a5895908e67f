"""Checkpoints: all that a run needs to go on after an epoch, and to end with the same bits as if nothing had happened.

A checkpoint is a message: what it belongs to, as one line of JSON, then the state as torch saves it. It travels from
the worker to the driver, which keeps the newest one of each run in a sealed file; no disk need be shared. The curves
are in the journal, which has every epoch before the checkpoint after it.
"""

import io
import json
import time
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch

from harness import sealed, seeding
from harness.config import RunConfig
from harness.devices import peak_memory_mb
from harness.events import Checkpoint
from harness.journal import Attempt
from harness.provenance import maker, provenance

if TYPE_CHECKING:
    from harness.train import State

FORMAT = 1


class Label(NamedTuple):
    """What a checkpoint belongs to. `made_by` is the source code and torch: others may give other bits."""

    format: int
    run_key: str
    epoch: int
    made_by: list[str | None]


@final
@dataclass
class Pace:
    """When a run saves its state, whether it is asked to stop after its epoch, and whether its weights are kept."""

    every_s: float | None = None
    every_epochs: int | None = None
    is_stopping: Callable[[], bool] = lambda: False
    keeps_model: bool = False
    _saved: float = field(default_factory=time.monotonic)

    def is_due(self, epoch: int) -> bool:
        """Return whether to save after that epoch."""
        by_epochs = self.every_epochs is not None and epoch % self.every_epochs == 0
        by_time = self.every_s is not None and time.monotonic() - self._saved >= self.every_s
        if by_epochs or by_time:
            self._saved = time.monotonic()
        return by_epochs or by_time


def save(run: RunConfig, state: "State") -> Checkpoint:
    """Return the state of a run after an epoch, and that of torch's generators."""
    device = torch.device(run.device)
    saved = {
        "step": state.step,
        "elapsed_s": state.elapsed_s,
        "step_s": torch.tensor(state.step_s, dtype=torch.float64),
        "peak_mb": max(state.peak_mb, peak_memory_mb(device)),
        "vae": state.vae.state_dict(),
        "estimator": state.estimator.state_dict(),
        "temperatures": {key: float(getattr(state.estimator, key)) for key in state.estimator.temperatures},
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "log_tau": state.learned_tau.log_tau.detach() if state.learned_tau else None,
        "generators": seeding.noise_state(device),
    }
    label = Label(FORMAT, run.key, state.epoch, list(maker(provenance())))
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return Checkpoint(state.epoch, json.dumps(label._asdict()).encode() + b"\n" + buffer.getbuffer())


def restore(run: RunConfig, state: "State", content: bytes) -> bool:
    """Put a run where its checkpoint was saved; return False, and change nothing, if other code than this made it."""
    label, body = label_of(content)
    if label.format != FORMAT or label.run_key != run.key or label.made_by != list(maker(provenance())):
        return False
    device = torch.device(run.device)
    saved: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    state.vae.load_state_dict(saved["vae"])
    state.estimator.load_state_dict(saved["estimator"])
    if state.learned_tau:
        with torch.no_grad():
            state.learned_tau.log_tau.copy_(saved["log_tau"])
    for optimizer, its_state in zip(state.optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(its_state)
    for key, value in saved["temperatures"].items():
        setattr(state.estimator, key, value)
    state.epoch, state.step, state.step_s = label.epoch, saved["step"], saved["step_s"].tolist()
    state.elapsed_s += saved["elapsed_s"]
    state.peak_mb = saved["peak_mb"]
    seeding.restore_noise(saved["generators"], device)
    return True


def label_of(content: bytes) -> tuple[Label, bytes]:
    """Return what a checkpoint belongs to, and its state as torch saved it."""
    line, _, body = content.partition(b"\n")
    return Label(**json.loads(line)), body


def _set_aside(path: Path) -> str:
    """Rename a file that is no checkpoint; say so."""
    try:
        return f"It is kept as {sealed.set_aside(path).name}"
    except OSError as error:
        return f"It could not be renamed ({error.strerror})"


@final
class Checkpoints:
    """The newest checkpoint of each unfinished run, as files of the sweep's folder, written by the driver alone."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder / "checkpoints", say
        self._is_failing = False

    def save(self, run_key: str, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint instead of the former one. A disk that refuses it is said once, and stops nothing."""
        try:
            self._folder.mkdir(exist_ok=True)
            sealed.write(self._path(run_key), checkpoint.content)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._say(f"checkpoints: {self._folder} could not be written to ({error.strerror}); the sweep goes on.")
            self._is_failing = True

    def load(self, run_key: str, attempt: Attempt) -> bytes | None:
        """Return the checkpoint from which an attempt may go on: of the same code, all its epochs in the journal.

        One that is damaged or cannot be read is set aside, said, and no more taken for one: the run starts over.
        """
        path = self._path(run_key)
        try:
            content = sealed.read(path)
        except FileNotFoundError:
            return None
        except sealed.Damaged as error:
            self._say(f"{error} {_set_aside(path)}; the run starts over.")
            return None
        except OSError as error:
            self._say(f"{path}: expected a checkpoint, got: {error.strerror}. {_set_aside(path)}; the run starts over.")
            return None
        label, _ = label_of(content)
        fits = label.epoch <= len(attempt.epochs) and tuple(label.made_by) == attempt.made_by
        return content if fits else None

    def discard(self, run_key: str) -> None:
        """Forget the checkpoint of a run that needs it no more."""
        with suppress(OSError):  # on a disk that was made read-only; the next sweep tries again
            self._path(run_key).unlink(missing_ok=True)

    def keep_only(self, run_keys: Container[str]) -> None:
        """Forget the checkpoints of all other runs, and what killed drivers have written half."""
        sealed.remove_partials(self._folder)
        for path in self._folder.glob("*.ckpt"):
            if path.stem not in run_keys:
                self.discard(path.stem)

    def _path(self, run_key: str) -> Path:
        return self._folder / f"{run_key}.ckpt"
