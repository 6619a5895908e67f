"""Where runs are computed. An executor only carries records: it knows nothing of journals, MLflow or terminals.

What is done about runs that get lost, and in which order they come, is decided in `harness.execution.dispatch`.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

from harness.config import RunConfig
from harness.devices import missing_reason
from harness.errors import UserError
from harness.events import TERMINAL, Failed, Record
from harness.execution.spawning import without_main_module
from harness.options import NEVER, SavingEvery
from harness.terminal import Output

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from estimators import Estimator
    from harness.training.run_controls import RunControls


class Job(NamedTuple):
    """A run to compute, from its beginning or from a checkpoint."""

    run: RunConfig
    checkpoint: bytes | None = None

    def to_bytes(self) -> bytes:
        return self.run.to_json().encode() + b"\n" + (self.checkpoint or b"")

    @classmethod
    def from_bytes(cls, message: bytes) -> "Job":
        text, _, checkpoint = message.partition(b"\n")
        return cls(RunConfig.from_json(text.decode()), checkpoint or None)


class Lost(NamedTuple):
    """A run whose process or machine is gone, and what is known of why. It may be submitted again."""

    run_key: str
    why: str


class Gone(UserError):  # noqa: N818 what the executor is
    """What computes the runs is lost as a whole."""


class Executor(ABC):
    """Computes jobs and brings their records, those of one run in the order in which they happened.

    The records of a run end with exactly one terminal event or with `Lost`, unless it is killed.
    """

    @abstractmethod
    def start(self, n_runs: int) -> None:
        """Start what computes, while the caller prepares the rest."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many runs are computed at once."""

    @abstractmethod
    def n_free(self, device: str) -> int:
        """Return how many more jobs on that device are wanted at present."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Begin a job."""

    @abstractmethod
    def poll(self, timeout_s: float) -> list[Record | Lost]:
        """Return what has come, waiting at most so long for the first of it."""

    @abstractmethod
    def kill(self, run_key: str) -> None:
        """Stop a run at once; nothing more comes from it."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Let the runs under way finish their epoch, save their state and end as interrupted."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything at once."""

    def missing_reason(self, device: str) -> str | None:
        """Return why no run can be computed on that device, or None."""
        return missing_reason(device)

    def memory_bytes(self) -> dict[str, int]:
        """Return the memory that each run under way uses on this machine, by run key."""
        return {}


STOP = b"stop"


@dataclass
class _Worker:
    process: "BaseProcess"
    connection: Connection
    run_key: str | None = None


@final
class LocalExecutor(Executor):
    """Spawned worker processes that are reused from run to run; one thread each by default.

    A worker that dies takes only its own run with it; a new one takes its place.
    """

    def __init__(
        self, *, workers: int, threads: int = 1, plugins: Sequence[Path] = (), saving: SavingEvery = NEVER
    ) -> None:
        if workers < 1 or threads < 1:
            raise ValueError(f"executor: expected workers and threads >= 1, got {workers} and {threads}.")
        self.workers, self.threads = workers, threads
        self._arguments = (threads, [str(path.absolute()) for path in plugins], saving)
        self._pool: list[_Worker] = []

    def start(self, n_runs: int) -> None:
        while len(self._pool) < min(self.workers, n_runs):
            self._pool.append(self._spawn())

    def __len__(self) -> int:
        return len(self._pool)

    def n_free(self, device: str) -> int:
        return sum(worker.run_key is None for worker in self._pool)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._pool if worker.run_key is None)
        if not worker.process.is_alive():  # it died while idle, which no run needs to suffer for
            self._replace(worker)
        worker.run_key = job.run.key
        try:
            worker.connection.send_bytes(job.to_bytes())
        except OSError:  # it died just now: what receives next sees the closed pipe and says so
            return

    def poll(self, timeout_s: float) -> list[Record | Lost]:
        busy = {worker.connection: worker for worker in self._pool if worker.run_key is not None}
        if not busy:
            time.sleep(timeout_s)
        ready = wait(list(busy), timeout_s)
        return [self._receive(busy[connection]) for connection in ready if isinstance(connection, Connection)]

    def kill(self, run_key: str) -> None:
        for worker in self._pool:
            if worker.run_key == run_key:
                self._replace(worker)

    def ask_to_stop(self) -> None:
        for worker in self._pool:
            if worker.run_key is not None:
                try:
                    worker.connection.send_bytes(STOP)
                except OSError:  # it died: what receives next says so
                    continue

    def close(self) -> None:
        for worker in self._pool:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._pool:
            worker.process.join()
        self._pool.clear()

    def memory_bytes(self) -> dict[str, int]:
        import psutil

        found = {}
        for worker in self._pool:
            if worker.run_key is not None and worker.process.pid is not None:
                try:
                    found[worker.run_key] = int(psutil.Process(worker.process.pid).memory_info().rss)
                except psutil.Error:  # it has just died
                    continue
        return found

    def _spawn(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        # numerical libraries read these when they are loaded, which in the child is before our first line runs
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(dict.fromkeys(names, str(self.threads)))
        resource_tracker.ensure_running()  # its own start would let SIGINT through again
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child ignores it
        try:
            with without_main_module():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        return _Worker(process, ours)

    def _replace(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.join()
        fresh = self._spawn()
        worker.process, worker.connection, worker.run_key = fresh.process, fresh.connection, None

    def _receive(self, worker: _Worker) -> Record | Lost:
        run_key = worker.run_key
        assert run_key is not None  # noqa: S101 only busy workers are waited for
        try:
            record = Record.from_bytes(worker.connection.recv_bytes())
        except (EOFError, OSError):
            worker.process.join()
            why = f"worker process died ({_exit_reason(worker.process.exitcode)})"
            self._replace(worker)
            return Lost(run_key, why)
        if isinstance(record.event, TERMINAL):
            worker.run_key = None
        return record


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, out of memory?" if name == "SIGKILL" else name
    return f"exit code {code}"


def _work(connection: Connection, threads: int, plugins: Sequence[str], saving: SavingEvery) -> None:
    """Run in a worker process: receive jobs, send their records, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)  # a plug-in may print
    threading.Thread(target=_die_with_the_driver, daemon=True).start()
    prepare_process(threads)
    from harness.plugins.registry import load_registry
    from harness.training.run_controls import RunControls

    registry = load_registry([Path(path) for path in plugins])
    gc.freeze()  # what is imported stays: collections during training need not look at it
    try:
        while True:
            message = connection.recv_bytes()
            if message == STOP:  # it came when the run had ended already
                continue
            stops = connection.poll  # nothing but STOP comes meanwhile
            controls = RunControls(saving.seconds, saving.epochs, is_stopping=stops, keeps_model=saving.model)
            for record in records_of(Job.from_bytes(message), registry, controls):
                connection.send_bytes(record.to_bytes())
    except (EOFError, ConnectionError):  # the driver closed the pipe, or is gone
        return


def _die_with_the_driver() -> None:
    """End this process when the driver is gone, in whatever way: its run goes on elsewhere, from its checkpoint."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def prepare_process(threads: int) -> None:
    """Make torch in this process what every run is promised, whichever executor it belongs to."""
    import torch

    from harness.devices import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def records_of(
    job: Job, registry: "Mapping[str, type[Estimator]]", controls: "RunControls | None" = None
) -> Iterator[Record]:
    """Train one run; turn an exception into a `Failed` record with its traceback, so that the sweep goes on."""
    from harness import process_state
    from harness.plugins import errors
    from harness.train import train

    run, before = job.run, process_state.snapshot()
    try:
        for event in train(run, registry, job.checkpoint, controls):
            yield Record.now(run.key, event)
    except Exception as error:  # noqa: BLE001 whatever a user's estimator raises is that run's failure, and is recorded
        line = errors.in_one_line(error, registry.get(run.estimator.name))
        text = "".join(traceback.format_exception(error))
        yield Record.now(run.key, Failed(line, text, crashed=is_out_of_memory(error)))
    finally:
        process_state.restore(before)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out: that depends on what else runs, so it may go well another time."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
