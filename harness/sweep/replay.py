"""What a store lacks of a sweep, from the journal: at the start of a sweep, after an outage, and by `harness sync`."""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.events import TERMINAL, Image, Record, Weights, is_cut_short
from harness.grid.load import Grid
from harness.status.note import outcome
from harness.storage import checksummed_file, last_command
from harness.storage.journal import Attempt, Journal, JournalError, add
from harness.storage.last_command import Origin
from harness.storage.weight_files import WeightFiles
from reports.contract.stored_run import (
    BASKET_FILE,
    FINISHED,
    GRID_FILE,
    PLAN_FILE,
    PROVENANCE_FILE,
    TAG_COMMAND,
    TAG_QUESTION,
    TAG_SWEEP_ID,
)

if TYPE_CHECKING:
    from harness.options import Options
    from harness.storage.sweep_state import Sweep
    from harness.tracking import Tracker


def open_store(
    tracker: "Tracker",
    sweep: "Sweep",
    options: "Options",
    *,
    thorough: bool = False,
    beat: Callable[[], None] = lambda: None,
) -> int:
    """Open the sweep in the store and replay what the journal has and the store has not. Return the number replayed.

    `thorough`: look at every run in the store, also if the last sweep there closed and nothing has happened since.
    `beat` is called after each run that was replayed.
    """
    return _open(tracker, sweep, last_command.of(sweep, options), thorough=thorough, beat=beat)


def sync_store(tracker: "Tracker", sweep: "Sweep") -> int:
    """Replay whatever the store lacks, and close the sweep there. Return the number of runs replayed.

    The store gets what the sweep was run with; where nobody knows that any more, what the store has of it stays.
    """
    made_with = last_command.read(sweep.folder)
    replayed = _open(tracker, sweep, made_with, thorough=True)
    counts = sweep.counts()
    status = "FINISHED" if counts[FINISHED] == len(sweep.grid.runs) else "FAILED"
    tracker.close_sweep(status, counts, sweep.ended_spans(), outcome(sweep, made_with, is_over=True))
    return replayed


def _open(
    tracker: "Tracker",
    sweep: "Sweep",
    made_with: Origin | None,
    *,
    thorough: bool,
    beat: Callable[[], None] = lambda: None,
) -> int:
    grid = sweep.grid
    tags, files = {TAG_QUESTION: grid.question}, {GRID_FILE: grid.text, PLAN_FILE: json.dumps(plan(grid))}
    if made_with is not None:
        tags[TAG_COMMAND] = made_with.command
        files[PROVENANCE_FILE] = json.dumps(made_with.provenance, indent=1)
    if labels := basket(grid):
        files[BASKET_FILE] = json.dumps(labels)
    note = outcome(sweep, made_with, is_over=False).note
    sweep_id = _sweep_id(sweep.folder)
    tracker.open_sweep(name=grid.name, sweep_id=sweep_id, runs=grid.runs, tags=tags, files=files, note=note)
    missing = tracker.missing(sweep.ended_spans(), thorough=thorough or bool(sweep.live()))
    if missing:
        for _ in _replayed(tracker, sweep, missing):
            beat()
    return len(missing)


def _replayed(tracker: "Tracker", sweep: "Sweep", missing: Set[str]) -> Iterator[str]:
    """Write the newest attempts at some runs again, one after the other, so that few are held at once; yield keys."""
    newest: dict[str, Attempt] = {}
    written: dict[str, int] = {}
    journal = Journal(sweep.folder)
    for record in journal.read(pictures=False):
        key = record.run_key
        if key not in missing:
            continue
        attempt = add(with_content(record, journal), newest)
        if attempt.begun_ms != sweep.spans[key].begun_ms or not isinstance(record.event, TERMINAL):
            continue
        tracker.write([each for each in attempt.records[written.get(key, 0) :] if not is_lost(each)], attempt)
        written[key] = len(attempt.records)
        if record.time_ms == sweep.spans[key].last_ms and not is_cut_short(record.event):
            del newest[key]
        yield key


def with_content(record: Record, journal: Journal) -> Record:
    """Return a record that was read without its picture or weights with them, unless they are lost."""
    if isinstance(weights := record.event, Weights):
        content = WeightFiles(journal.folder).read(record.run_key, weights.sha256)
        return replace(record, event=replace(weights, content=content or b""))
    if not isinstance(event := record.event, Image):
        return record
    return replace(record, event=replace(event, png=journal.picture(event.sha256) or b""))


def is_lost(record: Record) -> bool:
    """Return whether a record has lost its picture or weights.

    The store does without; their checksum there tells the reader.
    """
    event = record.event
    return (isinstance(event, Image) and not event.png) or (isinstance(event, Weights) and not event.content)


def with_weights(records: Sequence[Record], attempt: Attempt, journal: Journal) -> tuple[list[Record], Attempt]:
    """Return records of an attempt with the weights that the driver has put aside, and the attempt with the same."""
    mine = {id(each): with_content(each, journal) for each in records if isinstance(each.event, Weights)}
    if not mine:
        return list(records), attempt
    whole = Attempt([mine.get(id(each), each) for each in list(attempt.records)])
    return [found for each in records if not is_lost(found := mine.get(id(each), each))], whole


def plan(grid: Grid) -> list[dict[str, Any]]:
    """Return what every planned run is, so that a report sees the missing ones."""
    return [
        {
            "run_key": run.key,
            "name": run.name,
            "label": run.label,
            "estimator": run.estimator.name,
            "schedule": run.schedule.label,
            "setting": run.setting.stored(),
            "device": run.device,
            "seed": run.seed,
        }
        for run in grid.runs
    ]


def basket(grid: Grid) -> dict[str, str]:
    """Return the labels of the diagnostics' basket, which all runs share, by their names among the metrics."""
    found = grid.runs[0].diagnostics if grid.runs else None
    return dict(zip(found.metric_names, (one.label for one in found.basket), strict=True)) if found else {}


def _sweep_id(folder: Path) -> str:
    """Return the identity of the sweep in this folder: made once, kept beside the journal.

    Raises JournalError if it is damaged: with another one, the store would get every run a second time.
    """
    path = folder / "sweep_id"
    if not path.exists():
        checksummed_file.write(path, uuid.uuid4().hex.encode())
    content = path.read_bytes()
    if re.fullmatch(rb"[0-9a-f]{32}", content):  # of a version that did not seal it
        return content.decode()
    try:
        return checksummed_file.unseal(content, str(path)).decode()
    except checksummed_file.Damaged as error:
        raise JournalError(
            f"{error} Write the tag {TAG_SWEEP_ID} of the sweep's parent run in MLflow into it, or move it away: then "
            "the store gets every run a second time."
        ) from None
