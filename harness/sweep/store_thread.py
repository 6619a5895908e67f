"""The tracking store as a sweep sees it: opened before the first run, written by a thread of its own, closed last.

The journal has every record before it comes here, so what the store loses can be replayed.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from harness.events import Record
from harness.execution.deadlines import beside
from harness.status.note import Outcome, outcome
from harness.status.progress import Progress
from harness.storage import last_command
from harness.storage.journal import Attempt, Journal
from harness.sweep.replay import open_store, with_weights

if TYPE_CHECKING:
    from harness.options import Options
    from harness.storage.sweep_state import Span, Sweep
    from harness.tracking import Tracker

PATIENCE_S = 300.0
"""A store that has finished nothing for so long counts as lost. Most say so themselves, in seconds."""
LOOK_EVERY_S = 1.0
"""How often the thread, where it has nothing to write, asks whether the machine's state is due."""
QUEUED = 256
"""At most so many records wait for the store; then the driver waits too, so that its memory is bounded."""


class _Item(NamedTuple):
    record: Record
    attempt: Attempt


class Store:
    """Hands records to a thread that writes them, so that neither driver nor workers wait for a database.

    What has gathered while the thread was writing is written together: a short run in a handful of calls. Once the
    store fails, or is silent for PATIENCE_S, the sweep goes on from the journal alone and says so once; at the end the
    store is tried once more. Any other exception of the thread is raised in the driver, at its next call. Leaving the
    context writes what is queued, unless Ctrl-C leaves it. The driver hears Ctrl-C in all that waits for the store.
    """

    def __init__(self, connect: Callable[[], "Tracker"], progress: Progress) -> None:
        self._connect, self._progress = connect, progress
        self._opened: tuple[Sweep, Options] | None = None
        self._queue: Queue[_Item | None] = Queue(QUEUED)  # None: nothing comes any more
        self._thread = Thread(target=self._work, name="store", daemon=True)
        self._mistake: Exception | None = None
        self._beat = time.monotonic()
        self._is_silent = self._is_open = False
        self.lost: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):
            self._drain()
        if error is None:
            self._raise_mistake()

    def open(self, sweep: "Sweep", options: "Options") -> None:
        """Open the sweep in the store and replay what is missing, before anything is written."""
        self._opened = sweep, options
        try:
            last_command.keep(sweep, options)
        except OSError as error:
            self._progress.say(f"note: expected to store what the sweep is run with, got: {error.strerror}.")
        self._patiently(lambda: self._guarded(self._open))

    def _open(self) -> int:
        assert self._opened is not None  # noqa: S101 `open` comes first
        replayed = open_store(self._tracker, *self._opened, beat=self._has_moved)
        self._say_what_was_refused()
        self._is_open = True
        return replayed

    def _has_moved(self) -> None:
        """Take note that the store began or finished something."""
        self._beat = time.monotonic()

    @cached_property
    def _tracker(self) -> "Tracker":
        """The connection, made at its first use: the store may be down then, too."""
        tracker = self._connect()
        tracker.refusals.on_answer = self._has_moved
        return tracker

    def wait_for_room(self) -> None:
        """Wait until `write` will not."""
        while self.lost is None and self._queue.full():
            self._lose_if_silent()
            time.sleep(0.02)

    def write(self, record: Record, attempt: Attempt) -> None:
        """Queue one record; `attempt` holds it and all records of the same run before it."""
        self._raise_mistake()
        if self.lost is None:
            self._queue.put(_Item(record, attempt))

    def close(self, status: str, counts: Mapping[str, int]) -> None:
        """Write what is queued, then the end of the sweep."""
        self._drain()
        self._raise_mistake()
        if self.lost is not None and not self._is_silent:
            self._patiently(self._catch_up)
        spans, told = self._told()
        self._patiently(lambda: self._guarded(lambda: self._tracker.close_sweep(status, counts, spans, told)))
        if self.lost is None and (refused := self._tracker.refusals.count):
            self._progress.say(
                f"tracking: the store refused {refused} values or files, which it will never have. "
                "Trying again does not help; the journal has everything."
            )

    def _told(self) -> tuple[dict[str, "Span"], Outcome]:
        if self._opened is None:
            return {}, Outcome()
        sweep, options = self._opened
        return sweep.ended_spans(), outcome(sweep, last_command.of(sweep, options), is_over=True)

    def _catch_up(self) -> None:
        """Try a lost store once more, and replay what it lacks."""
        from harness.tracking import STORE_ERRORS, TrackingError

        if self._opened is None:
            return
        self.__dict__.pop("_tracker", None)  # a new connection
        try:
            replayed = self._open()
        except (*STORE_ERRORS, TrackingError):  # it was said when it was lost, and `lost` is said at the end
            return
        self.lost = None
        self._progress.say(f"tracking: the store answers again; {replayed} runs were replayed into it.")

    def _drain(self) -> None:
        if self._thread.is_alive():
            self.wait_for_room()
        if self._thread.is_alive() and not self._is_silent:
            self._queue.put(None)
            self._patiently(self._thread.join)

    def _patiently(self, action: Callable[[], object]) -> None:
        """Do it beside the main thread: a database that is silent would keep that deaf for Ctrl-C."""
        self._has_moved()  # it may have had nothing to do until now
        with suppress(TimeoutError):  # that it is lost was said
            beside(action, self._lose_if_silent)

    def _lose_if_silent(self) -> bool:
        if time.monotonic() - self._beat > PATIENCE_S:
            self._is_silent = True
            self._lose(f"no answer for {PATIENCE_S:g} s")
        return self._is_silent

    def _raise_mistake(self) -> None:
        if self._mistake is not None:
            raise self._mistake

    def _work(self) -> None:
        """Write batches until told to stop; after a failure, only empty the queue, so that the driver never waits."""
        for batch in self._batches():
            if self.lost is None and self._mistake is None:
                try:
                    self._guarded(lambda batch=batch: self._write(batch))  # type: ignore[misc]
                except Exception as error:  # noqa: BLE001 no store's failure: the driver raises it
                    self._mistake = error

    def _batches(self) -> Iterator[list[_Item]]:
        """Yield what is in the queue, all of it at a time, until None comes."""
        more = True
        while more:
            items = [self._next()]
            while len(items) < QUEUED and not self._queue.empty():  # this thread alone takes from it
                items.append(self._queue.get())
            batch = [item for item in items if item is not None]
            more = len(batch) == len(items)
            self._has_moved()
            if batch:
                yield batch

    def _next(self) -> _Item | None:
        """Wait for what comes next; meanwhile, and before it, the state of the machine is written."""
        while True:
            self._write_system()
            with suppress(Empty):
                return self._queue.get(timeout=LOOK_EVERY_S)

    def _write_system(self) -> None:
        """Whatever fails here is no loss: neither the sweep nor its store is given up for a curve."""
        if self._is_open and self.lost is None and self._mistake is None:
            with suppress(Exception):
                self._tracker.write_system()

    def _write(self, batch: list[_Item]) -> None:
        """Write a batch, the records of one attempt together."""
        together: dict[int, tuple[Attempt, list[Record]]] = {}
        for record, attempt in batch:
            together.setdefault(id(attempt), (attempt, []))[1].append(record)
        for attempt, records in together.values():
            if self._opened is not None:
                records, attempt = with_weights(records, attempt, Journal(self._opened[0].folder))
            if records:
                self._tracker.write(records, attempt)
                self._say_what_was_refused()
            self._has_moved()

    def _say_what_was_refused(self) -> None:
        for line in self._tracker.refusals.new_lines():
            self._progress.say(line)

    def _guarded(self, action: Callable[[], object]) -> None:
        from harness.tracking import STORE_ERRORS, first_line

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
                f"tracking: the store stopped answering ({why}). The sweep goes on; its journal has everything."
            )
