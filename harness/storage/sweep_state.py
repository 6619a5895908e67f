"""What is known of a sweep: the state of each of its runs, folded from the records of its journal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from harness.config import RunConfig
from harness.events import TERMINAL, EpochDone, Event, Finished, Interrupted, Record, Started, is_cut_short
from harness.grid.load import Grid
from harness.grid.yaml_nodes import SourceError, read_text
from harness.storage import plan
from harness.storage.attempt import Attempt, add_record, newest_attempts
from harness.storage.journal import Journal
from harness.storage.plan_file import Plan, PlannedRun


def is_measured(metric: str) -> bool:
    """Return whether a metric is a time or a size of memory. All others are the same whenever a run is computed."""
    return metric.startswith(("time/", "memory/")) or metric.endswith("/seconds")


SHOWN = ("test/neg_elbo", "time/total_s")
"""The final metrics that the terminal shows. The others are in journal and store, not in the driver's memory."""


class Span(NamedTuple):
    """When the newest attempt at a run began, and when it was heard of last: it tells what a store lacks."""

    begun_ms: int
    last_ms: int


@dataclass
class Sweep:
    """One grid and what is known of its runs: `ends` has the event that ended the newest attempt at a run, if any did.

    `attempts` are those under way and those that may go on; of the others only `ends`, `spans` and `origins` are kept.
    """

    grid: Grid
    folder: Path
    selected: tuple[RunConfig, ...] = field(repr=False)
    ends: dict[str, Event] = field(default_factory=dict, repr=False)
    attempts: dict[str, Attempt] = field(default_factory=dict, repr=False)
    spans: dict[str, Span] = field(default_factory=dict, repr=False)
    origins: dict[str, str] = field(default_factory=dict, repr=False)  # the code that finished runs were made with
    starts: dict[str, int] = field(default_factory=dict, repr=False)  # how often the newest attempt was started
    epoch_costs: Mapping[str, float] = field(default_factory=dict, repr=False)  # forecasts of an epoch of each setting

    def add(self, record: Record) -> Attempt:
        """Take note of a record; return its attempt, with it and all records of the same attempt before it."""
        attempt = add_record(record, self.attempts)
        key, event = record.run_key, record.event
        self.spans[key] = Span(attempt.begun_ms, record.time_ms)
        self.ends.pop(key, None)
        if isinstance(event, Started):
            self.starts[key] = 1 if attempt.records[0] is record else self.starts.get(key, 1) + 1
        if isinstance(event, TERMINAL):
            self.ends[key] = event
            if isinstance(event, Finished):
                self.ends[key] = Finished(event.step, {k: event.metrics[k] for k in SHOWN if k in event.metrics})
            if isinstance(event, Finished) and isinstance(first := attempt.records[0].event, Started):
                self.origins[key] = origin(first.provenance)
            if not is_cut_short(event):
                del self.attempts[key]
        return attempt

    def status(self, run: RunConfig) -> str:
        if (end := self.ends.get(run.key)) is not None:
            return end.kind
        return "running" if run.key in self.attempts else "planned"

    def ended_spans(self) -> dict[str, Span]:
        """Return the spans of the newest attempts at the runs whose newest attempt has ended."""
        return {key: self.spans[key] for key in self.ends}

    def live(self) -> list[str]:
        """Return the keys of the runs under way, or left so by a driver that was killed."""
        return [key for key in self.attempts if key not in self.ends]

    def take_for_interrupted(self, why: str) -> None:
        """Let the runs under way count as interrupted; the next driver records that."""
        for key in self.live():
            self.ends[key] = Interrupted(why)

    def counts(self) -> Counter[str]:
        return Counter(self.status(run) for run in self.grid.runs)

    def to_do(self, *, retry_failed: bool) -> list[RunConfig]:
        """Return the selected runs that are not finished; failed or diverged ones only if so asked."""
        done = {"finished"} if retry_failed else {"finished", "failed", "diverged"}
        return [run for run in self.selected if self.status(run) not in done]


def read_sweep(grid: Grid, out: Path, selected: Sequence[RunConfig] | None = None) -> Sweep:
    """Return what the journal of this grid says; `selected` are the runs to work on (None: all).

    Raises JournalError if the journal is damaged.
    """
    sweep = Sweep(grid, out / grid.name, tuple(grid.runs if selected is None else selected))
    for record in Journal(sweep.folder).read(pictures=False):
        sweep.add(record)
    return sweep


def read_status(grid_path: Path, out: Path, plugins: Sequence[Path], text: str | None = None) -> Sweep | None:
    """Return what is known of a sweep without building its grid, in a moment; None where the grid must be built.

    `text` is that of a grid that was read already, from a pipe. Of the epochs, attempts have the first and the newest
    since each start: most runs have ended, and need none.
    """
    try:
        text = read_text(grid_path) if text is None else text
    except SourceError:  # building the grid says what is wrong with it
        return None
    folder = plan.sweep_folder(out, grid_path, text)
    runs = plan.planned_runs(folder, text, plugins) if folder else None
    return None if folder is None or runs is None else _outlined(folder, text, runs)


def read_planned(grid_path: Path, out: Path, text: str | None = None) -> tuple[Sweep, Plan] | None:
    """Return a sweep as it was last run with this text: for a grid that cannot be built without its plug-ins."""
    try:
        text = read_text(grid_path) if text is None else text
    except SourceError:
        return None
    folder = plan.sweep_folder(out, grid_path, text)
    stored = plan.plan_of_text(folder, text) if folder else None
    return None if folder is None or stored is None else (_outlined(folder, text, stored.runs), stored)


def _outlined(folder: Path, text: str, runs: Sequence[PlannedRun]) -> Sweep:
    known = cast(tuple[RunConfig, ...], runs)  # their keys, names and labels are all that is asked for
    sweep = Sweep(Grid(folder.name, known, text), folder, known)
    sweep.epoch_costs = {run.label: run.setting.epoch_cost for run in runs if run.setting.epoch_cost is not None}
    journal = Journal(folder)
    for record in journal.read(pictures=False, epochs=False):
        sweep.add(record)
    if sweep.attempts:
        sweep.attempts = newest_attempts(journal.outline(sweep.attempts))
    return sweep


def origin(facts: Mapping[str, Any]) -> str:
    """Return what numbers depend on besides the configuration, for a person: the code and torch."""
    code = (facts["git_commit"] or facts["packages"]["argmax-harness"] or "unknown")[:12]
    return f"{code}{' with changes' if facts['git_dirty'] else ''}, torch {facts['packages']['torch']}"


def differing_metric(repeat: EpochDone, attempt: Attempt) -> str | None:
    """Return a metric that came out otherwise when an epoch was computed again, or None."""
    for known in attempt.epochs:
        if known.epoch == repeat.epoch:
            names = [name for name in known.metrics if not is_measured(name)]
            return next((name for name in names if repeat.metrics.get(name) != known.metrics[name]), None)
    return None
