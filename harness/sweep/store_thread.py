"""The writer of the tracking store: opened before the first run, writing in a thread of its own, closed last.

The journal has every record first, so records that the store loses can be replayed.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from harness.events import Record
from harness.execution.deadlines import call_with_deadline
from harness.status.progress import Progress
from harness.status.sweep_description import StoreSummary, summarize
from harness.storage import last_command
from harness.storage.attempt import Attempt
from harness.storage.journal import Journal
from harness.sweep.replay import open_store, planned_runs, with_weights
from reports.contract.stored_run import PLAN_FILE
from reports.contract.text import first_line

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.options import Options
    from harness.storage.sweep_state import Span, Sweep
    from harness.tracking import Tracker

TIMEOUT_S = 300.0
"""A store without any activity for so long counts as lost. Most stores fail by themselves within seconds."""
IDLE_S = 1.0
"""How often an idle thread checks whether the system metrics are due."""
MAX_QUEUED = 256
"""The largest number of records that wait for the store. After that the driver waits, so that memory is bounded."""


class _Queued(NamedTuple):
    record: Record
    attempt: Attempt


class _MoreRuns(NamedTuple):
    runs: "Sequence[RunConfig]"
    plan: str  # the content of PLAN_FILE


class StoreThread:
    """A thread that writes records to the tracking store, so that neither driver nor workers wait for a database.

    Records that are queued while the thread writes are written together: a short run takes a handful of calls. If the
    store fails or is silent for TIMEOUT_S, the sweep continues with the journal alone and says so once. At the end the
    store is tried once more. Any other exception of the thread is raised in the driver at its next call. Leaving the
    context writes what is queued, except after Ctrl-C. Ctrl-C works while the driver waits for the store.
    """

    def __init__(self, connect: Callable[[], "Tracker"], progress: Progress) -> None:
        self._connect, self._progress = connect, progress
        self._opened: tuple[Sweep, Options] | None = None
        self._queue: Queue[_Queued | _MoreRuns | None] = Queue(MAX_QUEUED)  # None: the end
        self._thread = Thread(target=self._work, name="store", daemon=True)
        self._bug: Exception | None = None
        self._last_activity = time.monotonic()
        self._timed_out = self._is_open = False
        self.lost: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):
            self._drain()
        if error is None:
            self._raise_bug()

    def open(self, sweep: "Sweep", options: "Options") -> None:
        """Open the sweep in the store and replay what is missing there."""
        self._opened = sweep, options
        try:
            last_command.save(sweep, options)
        except OSError as error:
            self._progress.say(f"note: the sweep's command was not stored beside the journal: {error.strerror}.")
        self._with_deadline(lambda: self._call_store(self._open))

    def _open(self) -> int:
        assert self._opened is not None  # noqa: S101 `open` comes first
        replayed = open_store(self._tracker, *self._opened, on_activity=self._note_activity)
        self._say_refusals()
        self._is_open = True
        return replayed

    def _note_activity(self) -> None:
        """Note that the store has started or finished something."""
        self._last_activity = time.monotonic()

    @cached_property
    def _tracker(self) -> "Tracker":
        """The connection. It is made at its first use because it may fail, too."""
        tracker = self._connect()
        tracker.refusals.on_answer = self._note_activity
        return tracker

    def wait_for_room(self) -> None:
        """Wait until the queue has room, so that `write` does not block."""
        while self.lost is None and self._queue.full():
            self._lose_if_silent()
            time.sleep(0.02)

    def write(self, record: Record, attempt: Attempt) -> None:
        """Queue one record. `attempt` has it and all earlier records of the same attempt."""
        self._raise_bug()
        if self.lost is None:
            self._queue.put(_Queued(record, attempt))

    def extend(self, sweep: "Sweep") -> None:
        """Queue the runs of a plan that has grown: the store takes records of planned runs only."""
        self._raise_bug()
        self.wait_for_room()
        if self.lost is None:
            self._queue.put(_MoreRuns(sweep.grid.runs, json.dumps(planned_runs(sweep.grid))))

    def close(self, status: str, counts: Mapping[str, int]) -> None:
        """Write what is queued, then close the sweep in the store."""
        self._drain()
        self._raise_bug()
        if self.lost is not None and not self._timed_out:
            self._with_deadline(self._catch_up)
        spans, summary = self._summary()
        self._with_deadline(lambda: self._call_store(lambda: self._tracker.close_sweep(status, counts, spans, summary)))
        if self.lost is None and (refused := self._tracker.refusals.count):
            self._progress.say(
                f"tracking: the store refused {refused} values or files for good. Trying again does not help; "
                "the journal has everything."
            )

    def _summary(self) -> tuple[dict[str, "Span"], StoreSummary]:
        if self._opened is None:
            return {}, StoreSummary()
        sweep, options = self._opened
        return sweep.ended_spans(), summarize(sweep, last_command.current(sweep, options), is_over=True)

    def _catch_up(self) -> None:
        """Try a lost store once more, and replay what it lacks."""
        from harness.tracking import STORE_ERRORS, TrackingError

        if self._opened is None:
            return
        self.__dict__.pop("_tracker", None)  # a new connection
        try:
            replayed = self._open()
        except (*STORE_ERRORS, TrackingError):  # already reported when the store was lost
            return
        self.lost = None
        self._progress.say(f"tracking: the store answers again; {replayed} runs were replayed into it.")

    def _drain(self) -> None:
        if self._thread.is_alive():
            self.wait_for_room()
        if self._thread.is_alive() and not self._timed_out:
            self._queue.put(None)
            self._with_deadline(self._thread.join)

    def _with_deadline(self, action: Callable[[], object]) -> None:
        """Call it outside the main thread: a silent database would block Ctrl-C there."""
        self._note_activity()  # it may have been idle until now
        with suppress(TimeoutError):  # the loss was reported
            call_with_deadline(action, self._lose_if_silent)

    def _lose_if_silent(self) -> bool:
        if time.monotonic() - self._last_activity > TIMEOUT_S:
            self._timed_out = True
            self._lose(f"no answer for {TIMEOUT_S:g} s")
        return self._timed_out

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _work(self) -> None:
        """Write batches until the end. After a failure, only empty the queue, so that the driver never waits."""
        for batch in self._batches():
            if self.lost is None and self._bug is None:
                try:
                    self._call_store(lambda batch=batch: self._write(batch))  # type: ignore[misc]
                except Exception as error:  # noqa: BLE001 the driver raises it
                    self._bug = error

    def _batches(self) -> Iterator[list[_Queued | _MoreRuns]]:
        """Yield everything that is queued as one batch, again and again until None is taken from the queue."""
        more = True
        while more:
            items = [self._next()]
            while len(items) < MAX_QUEUED and not self._queue.empty():  # only this thread takes from it
                items.append(self._queue.get())
            batch = [item for item in items if item is not None]
            more = len(batch) == len(items)
            self._note_activity()
            if batch:
                yield batch

    def _next(self) -> _Queued | _MoreRuns | None:
        """Wait for the next item. Before and meanwhile, write the system metrics when they are due."""
        while True:
            self._write_system()
            with suppress(Empty):
                return self._queue.get(timeout=IDLE_S)

    def _write_system(self) -> None:
        """Write system metrics if they are due. Errors are ignored: these metrics are optional."""
        if self._is_open and self.lost is None and self._bug is None:
            with suppress(Exception):
                self._tracker.write_system()

    def _write(self, batch: list[_Queued | _MoreRuns]) -> None:
        """Write a batch: new runs of the plan, then attempt by attempt."""
        if grown := [item for item in batch if isinstance(item, _MoreRuns)]:
            self._tracker.extend(grown[-1].runs, {PLAN_FILE: grown[-1].plan})
        by_attempt: dict[int, tuple[Attempt, list[Record]]] = {}
        for record, attempt in (item for item in batch if isinstance(item, _Queued)):
            by_attempt.setdefault(id(attempt), (attempt, []))[1].append(record)
        for attempt, records in by_attempt.values():
            if self._opened is not None:
                records, attempt = with_weights(records, attempt, Journal(self._opened[0].folder))
            if records:
                self._tracker.write(records, attempt)
                self._say_refusals()
            self._note_activity()

    def _say_refusals(self) -> None:
        for line in self._tracker.refusals.new_lines():
            self._progress.say(line)

    def _call_store(self, action: Callable[[], object]) -> None:
        """Call it unless the store is lost. An error of the store makes it lost."""
        from harness.tracking import STORE_ERRORS

        if self.lost is not None:
            return
        try:
            action()
        except STORE_ERRORS as error:
            self._lose(first_line(error).removeprefix("tracking: "))

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
            self._progress.say(
                f"tracking: the store stopped answering ({why}). The sweep continues; its journal has everything."
            )
