"""Runs in worker processes of this machine."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, final

from harness.events import TERMINAL, Record
from harness.execution.executor import Executor, Job, LostRun
from harness.execution.worker import STOP, work
from harness.options import NEVER, SavingEvery

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


@dataclass
class _Worker:
    process: "BaseProcess"
    connection: Connection
    run_key: str | None = None


@final
class LocalExecutor(Executor):
    """Spawned worker processes, each reused for many runs. A worker that dies loses only its own run and is replaced.

    Raises ValueError for fewer than one worker or thread.
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
        if not worker.process.is_alive():  # it died while idle
            self._replace(worker)
        worker.run_key = job.run.key
        try:
            worker.connection.send_bytes(job.to_bytes())
        except OSError:  # it died just now; `poll` sees the closed pipe
            return

    def poll(self, timeout_s: float) -> list[Record | LostRun]:
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
                except OSError:  # it died; `poll` sees the closed pipe
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
                except psutil.Error:  # it died just now
                    continue
        return found

    def _spawn(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, *self._arguments), daemon=True)
        # numerical libraries read these when they are loaded, before the first line of `work` runs
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(dict.fromkeys(names, str(self.threads)))
        resource_tracker.ensure_running()  # starting it would unblock SIGINT
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

    def _receive(self, worker: _Worker) -> Record | LostRun:
        run_key = worker.run_key
        assert run_key is not None  # noqa: S101 only busy workers are polled
        try:
            record = Record.from_bytes(worker.connection.recv_bytes())
        except (EOFError, OSError):
            worker.process.join()
            why = f"worker process died ({_exit_reason(worker.process.exitcode)})"
            self._replace(worker)
            return LostRun(run_key, why)
        if isinstance(record.event, TERMINAL):
            worker.run_key = None
        return record


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, out of memory?" if name == "SIGKILL" else name
    return f"exit code {code}"


@contextmanager
def without_main_module() -> Iterator[None]:
    """Hide this process's main module from processes that are spawned meanwhile. Workers do not need it.

    Otherwise a script that calls `main()` without `if __name__ == "__main__"` would start a sweep in each worker, and
    a script that was read from standard input could not be imported.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
