"""The replay of the journal into a store: when a sweep starts, after an outage, and by `harness sync`."""

import json
import re
import uuid
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.events import TERMINAL, Picture, Record, Weights, is_cut_short
from harness.grid.load import Grid
from harness.status.sweep_description import summarize
from harness.storage import checksummed_file, last_command
from harness.storage.attempt import Attempt, add_record
from harness.storage.journal import Journal, JournalError
from harness.storage.last_command import LastCommand
from harness.storage.weight_files import WeightFiles
from reports.contract.stored_run import (
    BASKET_FILE,
    FINISHED,
    GRID_FILE,
    GROWTH_FILE,
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
    on_activity: Callable[[], None] = lambda: None,
) -> int:
    """Open the sweep in the store and replay the runs that it lacks. Return their number.

    `on_activity` is called after each replayed run.
    """
    return _open(tracker, sweep, last_command.current(sweep, options), on_activity)


def sync_store(tracker: "Tracker", sweep: "Sweep") -> int:
    """Replay the runs that the store lacks, and close the sweep there. Return their number.

    The command that last ran the sweep is stored too. If it is no longer known, the store keeps the one it has.
    """
    made_with = last_command.read(sweep.folder)
    replayed = _open(tracker, sweep, made_with, thorough=True)
    counts = sweep.counts()
    status = "FINISHED" if counts[FINISHED] == len(sweep.grid.runs) else "FAILED"
    tracker.close_sweep(status, counts, sweep.ended_spans(), summarize(sweep, made_with, is_over=True))
    return replayed


def _open(
    tracker: "Tracker",
    sweep: "Sweep",
    made_with: LastCommand | None,
    on_activity: Callable[[], None] = lambda: None,
    *,
    thorough: bool = False,
) -> int:
    """Open the sweep. `thorough`: check every run in the store, even if nothing has happened since it was closed."""
    grid = sweep.grid
    tags, files = {TAG_QUESTION: grid.question}, {GRID_FILE: grid.text, PLAN_FILE: json.dumps(planned_runs(grid))}
    if made_with is not None:
        tags[TAG_COMMAND] = made_with.command
        files[PROVENANCE_FILE] = json.dumps(made_with.provenance, indent=1)
    if grid.growth is not None:
        files[GROWTH_FILE] = json.dumps(grid.growth.stated)
    if labels := basket_labels(grid):
        files[BASKET_FILE] = json.dumps(labels)
    description = summarize(sweep, made_with, is_over=False).description
    sweep_id = _sweep_id(sweep.folder)
    tracker.open_sweep(
        name=grid.name, sweep_id=sweep_id, runs=grid.runs, tags=tags, files=files, description=description
    )
    missing = tracker.missing(sweep.ended_spans(), thorough=thorough or bool(sweep.active_keys()))
    if missing:
        _replay(tracker, sweep, missing, on_activity)
    return len(missing)


def _replay(tracker: "Tracker", sweep: "Sweep", missing: Set[str], on_activity: Callable[[], None]) -> None:
    """Write the newest attempts of the missing runs one by one, so that few are in memory."""
    newest: dict[str, Attempt] = {}
    written: dict[str, int] = {}
    journal = Journal(sweep.folder)
    for record in journal.read():
        key = record.run_key
        if key not in missing:
            continue
        attempt = add_record(with_content(record, journal), newest)
        if attempt.begun_ms != sweep.spans[key].begun_ms or not isinstance(record.event, TERMINAL):
            continue
        tracker.write([each for each in attempt.records[written.get(key, 0) :] if not has_lost_content(each)], attempt)
        written[key] = len(attempt.records)
        if record.time_ms == sweep.spans[key].last_ms and not is_cut_short(record.event):
            del newest[key]
        on_activity()


def with_content(record: Record, journal: Journal) -> Record:
    """Return a record with its picture or weights, which are read from their files. Lost ones stay empty."""
    event = record.event
    if isinstance(event, Weights):
        content = WeightFiles(journal.folder).read(record.run_key, event.sha256)
        return replace(record, event=replace(event, content=content or b""))
    if isinstance(event, Picture):
        return replace(record, event=replace(event, png=journal.picture(event.sha256) or b""))
    return record


def has_lost_content(record: Record) -> bool:
    """Return whether a record has lost its picture or weights. The store does not get such a record."""
    event = record.event
    return (isinstance(event, Picture) and not event.png) or (isinstance(event, Weights) and not event.content)


def with_weights(records: Sequence[Record], attempt: Attempt, journal: Journal) -> tuple[list[Record], Attempt]:
    """Return records of an attempt, and the attempt, with the weights that the driver has moved to a file."""
    loaded = {id(each): with_content(each, journal) for each in records if isinstance(each.event, Weights)}
    if not loaded:
        return list(records), attempt
    whole = Attempt([loaded.get(id(each), each) for each in list(attempt.records)])
    return [found for each in records if not has_lost_content(found := loaded.get(id(each), each))], whole


def planned_runs(grid: Grid) -> list[dict[str, Any]]:
    """Return a description of every planned run, so that a report sees which are missing."""
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
            **({"task": run.task_name} if run.task else {}),  # plans of the VAE are as they were
            **({"role": run.role, "competitor": run.competitor} if run.role else {}),
        }
        for run in grid.runs
    ]


def basket_labels(grid: Grid) -> dict[str, str]:
    """Return the labels of the diagnostics' basket, which all runs share, by their names in the metrics."""
    found = grid.runs[0].diagnostics if grid.runs else None
    return dict(zip(found.metric_names, (one.label for one in found.basket), strict=True)) if found else {}


def _sweep_id(folder: Path) -> str:
    """Return the identity of the sweep in this folder, which is created once and kept beside the journal.

    Raises JournalError if it is damaged: with a new one, the store would get every run a second time.
    """
    path = folder / "sweep_id"
    if not path.exists():
        checksummed_file.write(path, uuid.uuid4().hex.encode())
    content = path.read_bytes()
    if re.fullmatch(rb"[0-9a-f]{32}", content):  # written before it had a checksum
        return content.decode()
    try:
        return checksummed_file.verify(content, str(path)).decode()
    except checksummed_file.DamagedError as error:
        raise JournalError(
            f"{error} Write the tag {TAG_SWEEP_ID} of the sweep's parent run in MLflow into it, or move it away: then "
            "the store gets every run a second time."
        ) from None
