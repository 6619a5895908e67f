"""The tracking store as a sweep sees it: opened before the first run, written by a thread of its own, closed last.

The journal has every record before it comes here, so what the store loses can be replayed.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cached_property
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from harness import origin, sealed
from harness.events import TERMINAL, Record, is_cut_short
from harness.grid import Grid
from harness.journal import Attempt, Journal, JournalError, add
from harness.origin import Origin
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.runner import Options
    from harness.sweep import Span, Sweep
    from harness.tracking import Tracker

QUEUED = 256
"""At most so many records wait for the store; then the driver waits too, so that its memory is bounded."""


class _Item(NamedTuple):
    record: Record
    attempt: Attempt


class Store:
    """Hands records to a thread that writes them, so that neither driver nor workers wait for a database.

    What has gathered while the thread was writing is written together: a short run in a handful of calls. Once the
    store fails, the sweep goes on from the journal alone and says so once; at the end the store is tried once more. Any
    other exception of the thread is raised in the driver, at its next call. Leaving the context writes what is queued,
    unless Ctrl-C leaves it.
    """

    def __init__(self, connect: Callable[[], "Tracker"], progress: Progress) -> None:
        self._connect, self._progress = connect, progress
        self._opened: tuple[Sweep, Options] | None = None
        self._queue: Queue[_Item | None] = Queue(QUEUED)  # None: nothing comes any more
        self._thread = Thread(target=self._work, name="store", daemon=True)
        self._mistake: Exception | None = None
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
            origin.keep(sweep, options)
        except OSError as error:
            self._progress.say(f"note: expected to store what the sweep is run with, got: {error.strerror}.")
        self._guarded(lambda: open_store(self._tracker, sweep, options))

    @cached_property
    def _tracker(self) -> "Tracker":
        """The connection, made at its first use: the store may be down then, too."""
        return self._connect()

    def write(self, record: Record, attempt: Attempt) -> None:
        """Queue one record; `attempt` holds it and all records of the same run before it."""
        self._raise_mistake()
        if self.lost is None:
            self._queue.put(_Item(record, attempt))

    def close(self, status: str, counts: Mapping[str, int]) -> None:
        """Write what is queued, then the end of the sweep."""
        self._drain()
        self._raise_mistake()
        if self.lost is not None:
            self._catch_up()
        self._guarded(lambda: self._tracker.close_sweep(status, counts, self._spans()))

    def _spans(self) -> dict[str, "Span"]:
        return self._opened[0].ended_spans() if self._opened is not None else {}

    def _catch_up(self) -> None:
        """Try a lost store once more, and replay what it lacks."""
        from harness.tracking import STORE_ERRORS, TrackingError

        if self._opened is None:
            return
        self.__dict__.pop("_tracker", None)  # a new connection
        try:
            replayed = open_store(self._tracker, *self._opened)
        except (*STORE_ERRORS, TrackingError):  # it was said when it was lost, and `lost` is said at the end
            return
        self.lost = None
        self._progress.say(f"tracking: the store answers again; {replayed} runs were replayed into it.")

    def _drain(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

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
            items = [self._queue.get()]
            while len(items) < QUEUED and not self._queue.empty():  # this thread alone takes from it
                items.append(self._queue.get())
            batch = [item for item in items if item is not None]
            more = len(batch) == len(items)
            if batch:
                yield batch

    def _write(self, batch: list[_Item]) -> None:
        """Write a batch, the records of one attempt together."""
        together: dict[int, tuple[Attempt, list[Record]]] = {}
        for record, attempt in batch:
            together.setdefault(id(attempt), (attempt, []))[1].append(record)
        for attempt, records in together.values():
            self._tracker.write(records, attempt)

    def _guarded(self, action: Callable[[], object]) -> None:
        from harness.tracking import STORE_ERRORS, first_line

        if self.lost is not None:
            return
        try:
            action()
        except STORE_ERRORS as error:
            self.lost = first_line(error).removeprefix("tracking: ")
            self._progress.say(
                f"tracking: the store stopped answering ({self.lost}). The sweep goes on; its journal has everything."
            )


def open_store(tracker: "Tracker", sweep: "Sweep", options: "Options", *, thorough: bool = False) -> int:
    """Open the sweep in the store and replay what the journal has and the store has not. Return the number replayed.

    `thorough`: look at every run in the store, also if the last sweep there closed and nothing has happened since.
    """
    return _open(tracker, sweep, origin.of(sweep, options), thorough=thorough)


def sync_store(tracker: "Tracker", sweep: "Sweep") -> int:
    """Replay whatever the store lacks, and close the sweep there. Return the number of runs replayed.

    The store gets what the sweep was run with; where nobody knows that any more, what the store has of it stays.
    """
    replayed = _open(tracker, sweep, origin.read(sweep.folder), thorough=True)
    counts = sweep.counts()
    status = "FINISHED" if counts["finished"] == len(sweep.grid.runs) else "FAILED"
    tracker.close_sweep(status, counts, sweep.ended_spans())
    return replayed


def _open(tracker: "Tracker", sweep: "Sweep", made_with: Origin | None, *, thorough: bool) -> int:
    grid = sweep.grid
    tags, files = {"harness.question": grid.question}, {"grid.yaml": grid.text, "plan.json": json.dumps(plan(grid))}
    if made_with is not None:
        tags["harness.command"] = made_with.command
        files["provenance.json"] = json.dumps(made_with.provenance, indent=1)
    tracker.open_sweep(name=grid.name, sweep_id=_sweep_id(sweep.folder), runs=grid.runs, tags=tags, files=files)
    missing = tracker.missing(sweep.ended_spans(), thorough=thorough or bool(sweep.live()))
    if missing:
        _replay(tracker, sweep, missing)
    return len(missing)


def _replay(tracker: "Tracker", sweep: "Sweep", missing: Set[str]) -> None:
    """Write the newest attempts at some runs again, one after the other, so that few are held at once."""
    newest: dict[str, Attempt] = {}
    written: dict[str, int] = {}
    for record in Journal(sweep.folder).read():
        key = record.run_key
        if key not in missing:
            continue
        attempt = add(record, newest)
        if attempt.begun_ms != sweep.spans[key].begun_ms or not isinstance(record.event, TERMINAL):
            continue
        tracker.write(attempt.records[written.get(key, 0) :], attempt)
        written[key] = len(attempt.records)
        if record.time_ms == sweep.spans[key].last_ms and not is_cut_short(record.event):
            del newest[key]


def plan(grid: Grid) -> list[dict[str, Any]]:
    """Return what every planned run is, so that a report sees the missing ones."""
    return [
        {
            "run_key": run.key,
            "name": run.name,
            "label": run.label,
            "estimator": run.estimator.name,
            "schedule": run.schedule.label,
            "device": run.device,
            "seed": run.seed,
        }
        for run in grid.runs
    ]


def _sweep_id(folder: Path) -> str:
    """Return the identity of the sweep in this folder: made once, kept beside the journal.

    Raises JournalError if it is damaged: with another one, the store would get every run a second time.
    """
    path = folder / "sweep_id"
    if not path.exists():
        sealed.write(path, uuid.uuid4().hex.encode())
    content = path.read_bytes()
    if re.fullmatch(rb"[0-9a-f]{32}", content):  # of a version that did not seal it
        return content.decode()
    try:
        return sealed.unseal(content, str(path)).decode()
    except sealed.Damaged as error:
        raise JournalError(
            f"{error} Write the tag harness.sweep_id of the sweep's parent run in MLflow into it, or move it away: then"
            " the store gets every run a second time."
        ) from None
