"""Executors without processes: one that computes runs in this process, and one that answers from a script."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.events import TERMINAL, Failed, Finished, Interrupted, Record
from harness.execution.executor import Executor, Job, LostRun
from harness.execution.worker import train_to_records
from harness.options import NEVER, Policy, SavingEvery
from harness.plugins.registry import load_registry
from harness.training.run_controls import RunControls


class InThisProcess(Executor):
    """An executor that computes runs in this process, one by one: a worker takes 3 s of a core to start."""

    def __init__(
        self, *, workers: int, threads: int = 1, plugins: Sequence[Path] = (), saving: SavingEvery = NEVER
    ) -> None:
        self.workers, self.n_runs, self.registry = workers, 0, load_registry(plugins)
        self.controls = RunControls(saving.seconds, saving.epochs, self.is_stopping, saving.model)
        self.records: Iterator[Record] | None = None
        self.stops = False

    def is_stopping(self) -> bool:
        return self.stops

    def start(self, n_runs: int) -> None:
        self.n_runs = n_runs

    def __len__(self) -> int:
        return min(self.workers, self.n_runs)

    def n_free(self, device: str) -> int:
        return int(self.records is None)

    def submit(self, job: Job) -> None:
        self.records = train_to_records(Job.from_bytes(job.to_bytes()), self.registry, self.controls)

    def poll(self, timeout_s: float) -> list[Record | LostRun]:
        if self.records is None:
            time.sleep(min(timeout_s, 0.02))
            return []
        record = Record.from_bytes(next(self.records).to_bytes())
        if isinstance(record.event, TERMINAL):
            self.close()
        return [record]

    def kill(self, run_key: str) -> None:
        self.close()

    def ask_to_stop(self) -> None:
        self.stops = True

    def close(self) -> None:
        if self.records is not None:
            self.records.close()
        self.records = None


SOON = Policy(retries=2, pause_s=0.0)


class Scripted(Executor):
    """Answers each submission of a run with the next of its scripts."""

    def __init__(self, scripts: dict[str, list[list[object]]], memory: dict[str, int] | None = None) -> None:
        self.scripts, self.ready = scripts, deque[Record | LostRun]()
        self.submitted: list[str] = []
        self.killed: list[str] = []
        self.stopped = False
        self.running: set[str] = set()
        self.used = memory or {}

    def start(self, n_runs: int) -> None: ...

    def __len__(self) -> int:
        return 2

    def n_free(self, device: str) -> int:
        return (2 if device == "cpu" else 1) - len(self.running)

    def submit(self, job: Job) -> None:
        key = job.run.key
        self.submitted.append(key)
        self.running.add(key)
        for event in self.scripts[key].pop(0):
            self.ready.append(LostRun(key, event) if isinstance(event, str) else Record.now(key, event))  # type: ignore[arg-type]

    def poll(self, timeout_s: float) -> list[Record | LostRun]:
        if not self.ready:
            time.sleep(min(timeout_s, 0.02))
            return []
        item = self.ready.popleft()
        if isinstance(item, LostRun) or isinstance(item.event, Finished | Failed | Interrupted):
            self.running.discard(item.run_key)
        return [item]

    def kill(self, run_key: str) -> None:
        self.killed.append(run_key)
        self.running.discard(run_key)

    def ask_to_stop(self) -> None:
        self.stopped = True
        for key in self.running:
            self.ready.append(Record.now(key, Interrupted("stopped after epoch 1")))

    def close(self) -> None: ...

    def memory_bytes(self) -> dict[str, int]:
        return {key: size for key, size in self.used.items() if key in self.running}


DONE = Finished(2, {})
