"""An executor that answers as it is told."""

import time
from collections import deque

from harness.events import Failed, Finished, Interrupted, Record
from harness.execution.executor import Executor, Job, LostRun
from harness.options import Policy

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
