"""The order of runs, their retries and their limits, for every executor.

A crash (a lost process or machine, or a lack of memory) is retried after a growing pause. An exception of the run's
code is not, because it would occur again. Retries are counted only here.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import final

from harness.config import RunConfig
from harness.events import TERMINAL, Event, Failed, Interrupted, Record, Started
from harness.execution.executor import Executor, Job, LostRun
from harness.execution.memory_guard import MemoryGuard
from harness.options import Policy

POLL_S = 0.5
"""Requests to stop, time limits and retries are noticed within this time."""
LONGEST_PAUSE_S = 60.0

_Queue = list[tuple[float, int, RunConfig]]
"""A heap of (earliest time to submit, position in the order, run)."""


@final
class Dispatch:
    """Submits runs to an executor and yields their records.

    `stop` may be called at any time, even by a signal handler. `on_stop` is called once when that is noticed.
    """

    def __init__(
        self,
        executor: Executor,
        policy: Policy,
        job_of: Callable[[RunConfig], Job],
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._executor, self._policy, self._job_of, self._on_stop = executor, policy, job_of, on_stop
        self._waiting: dict[str, _Queue] = {}  # by device
        self._order = count()
        self._running: dict[str, RunConfig] = {}
        self._started: dict[str, float] = {}
        self._crashes: Counter[str] = Counter()
        self._guard = MemoryGuard(policy.memory_limit)
        self.is_stopping = self._stop_forwarded = False

    def stop(self) -> None:
        """Submit nothing more, and let active runs finish their epoch and save their state."""
        self.is_stopping = True

    def records(self, runs: Sequence[RunConfig]) -> Iterator[Record]:
        """Yield the records of all runs. Each run ends with a terminal event unless it never began."""
        for run in runs:
            self._push(run, 0.0)
        while self._running or (any(self._waiting.values()) and not self.is_stopping):
            self._submit()
            if self.is_stopping and not self._stop_forwarded:
                self._stop_forwarded = True
                self._on_stop()
                self._executor.ask_to_stop()
            for item in self._executor.poll(self._poll_timeout_s()):
                yield self._on_lost_run(item) if isinstance(item, LostRun) else self._on_record(item)
            yield from self._over_limits()

    def _push(self, run: RunConfig, not_before: float) -> None:
        heapq.heappush(self._waiting.setdefault(run.device, []), (not_before, next(self._order), run))

    def _submit(self) -> None:
        while (queue := self._next()) is not None and queue[0][0] <= time.monotonic():
            if self._running and self._guard.is_short():
                return
            run = heapq.heappop(queue)[2]
            self._running[run.key] = run
            self._executor.submit(self._job_of(run))

    def _next(self) -> _Queue | None:
        """Return the queue of the next run, among the devices with free workers, or None if none may be submitted."""
        if self.is_stopping:
            return None
        with_room = [queue for device, queue in self._waiting.items() if queue and self._executor.n_free(device) > 0]
        return min(with_room, key=lambda queue: queue[0][:2], default=None)

    def _poll_timeout_s(self) -> float:
        """Return how long to wait for records before something else is due."""
        queue = self._next()
        return POLL_S if queue is None else min(POLL_S, max(0.01, queue[0][0] - time.monotonic()))

    def _on_record(self, record: Record) -> Record:
        key, event = record.run_key, record.event
        if isinstance(event, Started):
            self._started[key] = time.monotonic()
        if isinstance(event, Failed) and event.crashed:
            return replace(record, event=self._retry_or_fail(key, event.error, event))
        if isinstance(event, TERMINAL):
            self._forget(key)
        return record

    def _on_lost_run(self, lost: LostRun) -> Record:
        return Record.now(lost.run_key, self._retry_or_fail(lost.run_key, lost.why, Failed(lost.why, crashed=True)))

    def _retry_or_fail(self, key: str, why: str, failed: Event) -> Event:
        """Return the event for a crash: an interruption if the run is retried, else a failure."""
        run = self._running[key]
        self._forget(key)
        self._crashes[key] += 1
        n_crashes = self._crashes[key]
        if self.is_stopping:
            return Interrupted(why)
        if n_crashes > self._policy.retries:
            return failed
        pause_s = min(LONGEST_PAUSE_S, self._policy.pause_s * 2 ** (n_crashes - 1))
        self._push(run, time.monotonic() + pause_s)
        return Interrupted(f"{why}; retry {n_crashes} of {self._policy.retries} in {pause_s:g} s", retrying=True)

    def _forget(self, key: str) -> None:
        del self._running[key]
        self._started.pop(key, None)

    def _over_limits(self) -> Iterator[Record]:
        """Kill runs over their time or memory limit. If the machine is short of memory, requeue the largest run."""
        limit_s = self._policy.time_limit_s
        for key, begun in list(self._started.items()):
            if limit_s is not None and time.monotonic() - begun > limit_s:
                yield self._kill_run(key, f"took longer than the time limit of {limit_s:g} s")
        if (offender := self._guard.over_limit(self._executor.memory_bytes)) is not None:
            yield self._kill_run(*offender)
        elif (
            len(self._running) > 1
            and (largest := self._guard.largest_if_short(self._executor.memory_bytes)) is not None
        ):
            yield self._kill_and_requeue(*largest)

    def _kill_and_requeue(self, key: str, why: str) -> Record:
        """Stop a run and resume it once there is memory. This does not count as a retry."""
        self._executor.kill(key)
        if not self.is_stopping:
            self._push(self._running[key], time.monotonic() + self._policy.pause_s)
        self._forget(key)
        then = "run the sweep again to resume it" if self.is_stopping else "it resumes when memory is free"
        return Record.now(key, Interrupted(f"{why}; {then}", retrying=not self.is_stopping))

    def _kill_run(self, key: str, why: str) -> Record:
        self._executor.kill(key)
        self._forget(key)
        advice = "raise the limit and rerun with --retry failed; it resumes from its newest checkpoint, if any"
        return Record.now(key, Failed(f"{why}; {advice}", crashed=True))
