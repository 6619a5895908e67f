"""The tracking store as a sweep sees it: opened before the first run, written by a thread of its own, closed last.

The journal has every record before it comes here, so what the store loses can be replayed.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from harness.events import Record
from harness.grid import Grid
from harness.journal import Attempt, Journal, attempts
from harness.progress import Progress
from harness.provenance import provenance

if TYPE_CHECKING:
    from harness.runner import Options, Sweep
    from harness.tracking import Tracker

QUEUED = 256
"""At most so many records wait for the store; then the driver waits too, so that its memory is bounded."""


class _Item(NamedTuple):
    record: Record
    attempt: Attempt


class Store:
    """Hands records to a thread that writes them, so that neither driver nor workers wait for a database.

    What has gathered while the thread was writing is written together: a short run in a handful of calls. Once the
    store fails, the sweep goes on from the journal alone and says so once. Any other exception of the thread is raised
    in the driver, at its next call. Leaving the context writes what is queued, unless Ctrl-C leaves it.
    """

    def __init__(self, tracker: "Tracker", progress: Progress) -> None:
        self._tracker, self._progress = tracker, progress
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
        self._guarded(lambda: open_store(self._tracker, sweep, options))

    def write(self, record: Record, attempt: Attempt) -> None:
        """Queue one record; `attempt` holds it and all records of the same run before it."""
        self._raise_mistake()
        if self.lost is None:
            self._queue.put(_Item(record, attempt))

    def close(self, status: str, counts: Mapping[str, int]) -> None:
        """Write what is queued, then the end of the sweep."""
        self._drain()
        self._raise_mistake()
        self._guarded(lambda: self._tracker.close_sweep(status, counts))

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
        from harness.tracking import STORE_ERRORS

        if self.lost is not None:
            return
        try:
            action()
        except STORE_ERRORS as error:
            self.lost = (str(error).splitlines() or [type(error).__name__])[0]
            self._progress.say(
                f"tracking: the store stopped answering ({self.lost}). The sweep goes on; its journal has everything."
            )


def open_store(tracker: "Tracker", sweep: "Sweep", options: "Options") -> int:
    """Open the sweep in the store and replay what the journal has and the store has not. Return the number replayed."""
    grid = sweep.grid
    described = {**provenance(), "workers": options.workers, "threads": options.threads}
    tracker.open_sweep(
        name=grid.name,
        sweep_id=_sweep_id(sweep.folder),
        runs=grid.runs,
        tags={"harness.command": options.command, "harness.question": grid.question},
        files={
            "grid.yaml": grid.text,
            "plan.json": json.dumps(plan(grid)),
            "provenance.json": json.dumps(described, indent=1),
        },
    )
    journal = Journal(sweep.folder)
    ended = {key: a for key, a in attempts(journal.read(pictures=False)).items() if a.end is not None}
    missing = tracker.missing(ended)
    if missing:  # only now are the pictures read
        for key, attempt in attempts(journal.read()).items():
            if key in missing:
                tracker.write(attempt.records, attempt)
    return len(missing)


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
    """Return the identity of the sweep in this folder: made once, kept beside the journal."""
    path = folder / "sweep_id"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(uuid.uuid4().hex)
        os.replace(partial, path)
    return path.read_text().strip()
