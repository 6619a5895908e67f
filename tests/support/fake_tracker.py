"""A store in memory that fails on request."""

import threading

from harness.events import EpochDone, Event, Finished, Record, Started
from harness.status.sweep_description import StoreSummary
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import Span
from harness.sweep.store_thread import StoreThread
from harness.tracking.refusals import Refusals

Gate = threading.Event


class FakeTracker:
    """A tracker that keeps what is written, waits at the gate before each write, and fails on request."""

    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[list[Record]] = []
        self.refusals = Refusals()
        self.closed: list[str] = []
        self.error = error
        self.gate, self.entered = Gate(), Gate()
        self.gate.set()

    def write(self, records: list[Record], attempt: Attempt) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.written.append(records)

    def close_sweep(self, status: str, counts: dict[str, int], spans: dict[str, Span], summary: StoreSummary) -> None:
        self.closed.append(status)


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def new_store(tracker: FakeTracker, said: Said | None = None) -> StoreThread:
    return StoreThread(lambda: tracker, said or Said())  # type: ignore[arg-type]


def attempt_of(key: str, epochs: int = 2) -> Attempt:
    events: list[Event] = [Started({}), *(EpochDone(i, i, 0.0, {}) for i in range(epochs)), Finished(2, {})]
    return Attempt([Record(key, i, event) for i, event in enumerate(events)])


def write(store: StoreThread, attempt: Attempt) -> None:
    for record in attempt.records:
        store.write(record, attempt)
