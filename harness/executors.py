"""Where runs are computed. An executor only carries records: it knows nothing of journals, MLflow or terminals."""

import gc
import multiprocessing
import os
import signal
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, final

from harness.config import RunConfig
from harness.events import TERMINAL, Failed, Record

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from estimators import Estimator


class Executor(ABC):
    """Computes runs and yields their records as they happen; each run ends in exactly one terminal event."""

    @abstractmethod
    def execute(self, runs: Sequence[RunConfig]) -> Iterator[Record]:
        """Yield the records of all runs. Closing the generator stops whatever is under way."""


@dataclass
class _Worker:
    process: "BaseProcess"
    connection: Connection
    run: RunConfig | None = None


@final
class LocalExecutor(Executor):
    """Spawned worker processes that are reused from run to run; one thread each by default.

    A worker that dies takes only its own run with it: that run is recorded as failed and a new worker goes on.
    """

    def __init__(self, *, workers: int, threads: int = 1, plugins: Sequence[Path] = ()) -> None:
        if workers < 1 or threads < 1:
            raise ValueError(f"executor: expected workers and threads >= 1, got {workers} and {threads}.")
        self.workers, self.threads = workers, threads
        self._plugins = [str(path.absolute()) for path in plugins]
        self._pool: list[_Worker] = []

    def start(self, n_runs: int) -> None:
        """Start the workers; they import torch while the caller prepares the rest."""
        while len(self._pool) < min(self.workers, n_runs):
            self._pool.append(self._spawn())

    def __len__(self) -> int:
        return len(self._pool)

    def execute(self, runs: Sequence[RunConfig]) -> Iterator[Record]:
        pending = deque(runs)
        self.start(len(pending))
        try:
            for worker in self._pool:
                self._next_run(worker, pending)
            while busy := [worker for worker in self._pool if worker.run is not None]:
                for ready in wait([worker.connection for worker in busy]):
                    worker = next(w for w in busy if w.connection is ready)
                    record = self._receive(worker)
                    yield record
                    if isinstance(record.event, TERMINAL):
                        self._next_run(worker, pending)
        finally:
            self.close()

    def close(self) -> None:
        """Stop every worker at once."""
        for worker in self._pool:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._pool:
            worker.process.join()
        self._pool.clear()

    def _spawn(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.threads, self._plugins), daemon=True)
        # numerical libraries read these when they are loaded, which in the child is before our first line runs
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(dict.fromkeys(names, str(self.threads)))
        try:
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        return _Worker(process, ours)

    def _next_run(self, worker: _Worker, pending: deque[RunConfig]) -> None:
        worker.run = pending.popleft() if pending else None
        if worker.run is None:
            return
        try:
            worker.connection.send_bytes(worker.run.to_json().encode())
        except OSError:  # it died while idle; the next receive sees the closed pipe and says so
            return

    def _receive(self, worker: _Worker) -> Record:
        assert worker.run is not None  # noqa: S101 only busy workers are waited for
        try:
            return Record.from_json(worker.connection.recv_bytes().decode())
        except (EOFError, OSError):
            worker.process.join()
            died = Failed(f"worker process died ({_exit_reason(worker.process.exitcode)})")
            record = Record.now(worker.run.key, died)
            fresh = self._spawn()
            worker.process, worker.connection = fresh.process, fresh.connection
            return record


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, out of memory?" if name == "SIGKILL" else name
    return f"exit code {code}"


def _work(connection: Connection, threads: int, plugins: Sequence[str]) -> None:
    """Run in a worker process: receive runs, send their records, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    import torch

    from harness.devices import keep_freed_memory
    from harness.plugins import load_registry

    torch.set_num_threads(threads)
    keep_freed_memory()
    registry = load_registry([Path(path) for path in plugins])
    gc.freeze()  # what is imported stays: collections during training need not look at it
    try:
        while True:
            run = RunConfig.from_json(connection.recv_bytes().decode())
            for record in records_of(run, registry):
                connection.send_bytes(record.to_json().encode())
    except (EOFError, ConnectionError):  # the driver closed the pipe, or is gone
        return


def records_of(run: RunConfig, registry: "Mapping[str, type[Estimator]]") -> Iterator[Record]:
    """Train one run; turn an exception into a `Failed` record with its traceback, so that the sweep goes on."""
    from harness.train import train

    try:
        for event in train(run, registry):
            yield Record.now(run.key, event)
    except Exception as error:  # noqa: BLE001 whatever a user's estimator raises is that run's failure, and is recorded
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        text = "".join(traceback.format_exception(error))
        yield Record.now(run.key, Failed(f"{line} ({Path(where.filename).name}:{where.lineno})", text))
