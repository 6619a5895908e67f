"""What every executor does: compute jobs and return their records.

An executor knows nothing of journals, MLflow or terminals. `harness.execution.dispatch` decides the order of runs and
what happens to lost ones.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from harness.config import RunConfig
from harness.devices import missing_reason
from harness.errors import UserError
from harness.events import Record


class Job(NamedTuple):
    """A run to compute, from the start or from a checkpoint."""

    run: RunConfig
    checkpoint: bytes | None = None

    def to_bytes(self) -> bytes:
        return self.run.to_json().encode() + b"\n" + (self.checkpoint or b"")

    @classmethod
    def from_bytes(cls, message: bytes) -> "Job":
        text, _, checkpoint = message.partition(b"\n")
        return cls(RunConfig.from_json(text.decode()), checkpoint or None)


class LostRun(NamedTuple):
    """A run whose process or machine is gone, and the known reason. It may be submitted again."""

    run_key: str
    why: str


class ExecutorError(UserError):
    """The executor as a whole is lost: it cannot compute any more runs."""


class Executor(ABC):
    """Computes jobs and returns their records, those of one run in the order in which they happened.

    The records of a run end with exactly one terminal event or with `LostRun`, unless the run is killed.
    """

    @abstractmethod
    def start(self, n_runs: int) -> None:
        """Start the workers, while the caller prepares the rest."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many runs are computed at once."""

    @abstractmethod
    def n_free(self, device: str) -> int:
        """Return how many more jobs for that device may be submitted now."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Begin a job."""

    @abstractmethod
    def poll(self, timeout_s: float) -> list[Record | LostRun]:
        """Return what has arrived. Wait at most `timeout_s` for the first of it."""

    @abstractmethod
    def kill(self, run_key: str) -> None:
        """Stop a run at once. It sends nothing more."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Let active runs finish their epoch, save their state and end as interrupted."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything at once."""

    def missing_reason(self, device: str) -> str | None:
        """Return why no run can be computed on that device, or None."""
        return missing_reason(device)

    def memory_bytes(self) -> dict[str, int]:
        """Return the memory that each active run uses on this machine, by run key."""
        return {}
