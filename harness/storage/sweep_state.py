"""The state of a sweep: that of each of its runs, computed from the records of its journal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from harness.config import RunConfig
from harness.events import TERMINAL, EpochDone, Event, Finished, Interrupted, Record, Started, is_cut_short
from harness.grid.load import Grid
from harness.grid.yaml_nodes import SourceError, read_text
from harness.search.blocks import Block
from harness.storage import plan
from harness.storage.attempt import Attempt, add_record, newest_attempts
from harness.storage.journal import Journal
from harness.storage.plan_file import Plan, PlannedRun
from reports.contract.stored_run import TOTAL_S

SETTLED = frozenset({"finished", "failed", "diverged"})
"""The statuses of runs that are not run again unless the user asks for it."""
FINISHED_ONLY = frozenset({"finished"})


def is_measured(metric: str) -> bool:
    """Return whether a metric is a time or a memory size. All others are the same whenever a run is computed."""
    return metric.startswith(("time/", "memory/")) or metric.endswith("/seconds")


class Span(NamedTuple):
    """The times of the first and last record of the newest attempt at a run. They tell what a store lacks."""

    begun_ms: int
    last_ms: int


@dataclass
class Sweep:
    """A grid and the state of its runs.

    `ends` holds the event that ended the newest attempt at a run, if it has ended. `attempts` holds those that are
    active or can be resumed. `code_by_run` describes the code of finished runs, `starts` counts the starts of the
    newest attempt, and `epoch_costs` are forecasts by label.
    """

    grid: Grid
    folder: Path
    selected: tuple[RunConfig, ...] = field(repr=False)
    ends: dict[str, Event] = field(default_factory=dict, repr=False)
    attempts: dict[str, Attempt] = field(default_factory=dict, repr=False)
    spans: dict[str, Span] = field(default_factory=dict, repr=False)
    code_by_run: dict[str, str] = field(default_factory=dict, repr=False)
    starts: dict[str, int] = field(default_factory=dict, repr=False)
    epoch_costs: Mapping[str, float] = field(default_factory=dict, repr=False)
    decisions: list[str] = field(default_factory=list, init=False, repr=False)  # what results decided, as lines
    _blocks: Iterator[Block] = field(default_factory=lambda: iter(()), init=False, repr=False)
    _present: tuple[RunConfig, ...] = field(default=(), init=False, repr=False)
    is_whole: bool = field(default=True, init=False)  # no run is missing that results could still ask for

    def __post_init__(self) -> None:
        if self.grid.growth is not None:
            self._blocks, self.is_whole = self.grid.growth.rule(self.result), False
            self.grid, self.selected = replace(self.grid, runs=()), ()
            self.grow()

    def grow(self, settled: Set[str] = SETTLED) -> list[Block]:
        """Add the runs that the results decide by now, and return their blocks. `settled` are the statuses of an end.

        A grid whose runs are all known from the start has none.
        """
        found: list[Block] = []
        while not self.is_whole and all(self.status(run) in settled for run in self._present):
            if (block := next(self._blocks, None)) is None:
                self.is_whole = True
                break
            self._present = block.runs
            self.decisions += block.lines
            known = {run.key for run in self.grid.runs}
            new = tuple(run for run in block.runs if run.key not in known)
            self.grid = replace(self.grid, runs=(*self.grid.runs, *new))
            self.selected = self.grid.runs
            found.append(block)
        return found

    def result(self, run: RunConfig) -> float | None:
        """Return the result of a run that has ended, lower is better; None if it did not finish."""
        end = self.ends.get(run.key)
        if not isinstance(end, Finished):
            return None
        value = end.metrics[run.result_metric]
        return value if run.measures[0].better == "lower" else -value

    def add(self, record: Record) -> Attempt:
        """Add a record. Return its attempt, which holds all records up to this one."""
        attempt = add_record(record, self.attempts)
        key, event = record.run_key, record.event
        self.spans[key] = Span(attempt.begun_ms, record.time_ms)
        self.ends.pop(key, None)
        if isinstance(event, Started):
            self.starts[key] = 1 if attempt.records[0] is record else self.starts.get(key, 1) + 1
        if isinstance(event, TERMINAL):
            self.ends[key] = event
            if isinstance(event, Finished):
                shown = {name: event.metrics[name] for name in self.shown_metrics if name in event.metrics}
                self.ends[key] = Finished(event.step, shown)
                if isinstance(first := attempt.records[0].event, Started):
                    self.code_by_run[key] = describe_code(first.provenance)
            if not is_cut_short(event):
                del self.attempts[key]
        return attempt

    @cached_property
    def shown_metrics(self) -> tuple[str, ...]:
        """The final metrics that the terminal shows. Only these are kept in memory."""
        firsts = {run.measures[0] for run in self.grid.runs}
        return (*(name for one in firsts for name in (one.metric, one.validation_metric)), TOTAL_S)

    def status(self, run: RunConfig) -> str:
        if (end := self.ends.get(run.key)) is not None:
            return end.kind
        return "running" if run.key in self.attempts else "planned"

    def ended_spans(self) -> dict[str, Span]:
        """Return the spans of the newest attempts that have ended, by run key."""
        return {key: self.spans[key] for key in self.ends}

    def active_keys(self) -> list[str]:
        """Return the keys of the active runs. A killed driver leaves its runs active."""
        return [key for key in self.attempts if key not in self.ends]

    def mark_interrupted(self, why: str) -> None:
        """Count the active runs as interrupted. The next driver records that."""
        for key in self.active_keys():
            self.ends[key] = Interrupted(why)

    def counts(self) -> Counter[str]:
        return Counter(self.status(run) for run in self.grid.runs)

    def to_do(self, *, retry_failed: bool) -> list[RunConfig]:
        """Return the selected runs that are not finished. Failed and diverged ones are included with `retry_failed`."""
        done = FINISHED_ONLY if retry_failed else SETTLED
        return [run for run in self.selected if self.status(run) not in done]


def read_sweep(
    grid: Grid, out: Path, selected: Sequence[RunConfig] | None = None, settled: Set[str] = SETTLED
) -> Sweep:
    """Return the state of a grid's sweep by its journal. `selected` are the runs to work on (None: all).

    A plan that grows has the runs that the results decide by now; runs with another status than `settled` decide
    nothing. Raises JournalError if the journal is damaged.
    """
    sweep = Sweep(grid, out / grid.name, tuple(grid.runs if selected is None else selected))
    for record in Journal(sweep.folder).read():
        sweep.add(record)
    sweep.grow(settled)
    return sweep


def read_status(grid_path: Path, out: Path, plugins: Sequence[Path], text: str | None = None) -> Sweep | None:
    """Return the state of a sweep quickly, without building its grid, or None if the grid must be built.

    `text` is that of a grid that was already read from a pipe. Attempts hold only the first and the last epoch since
    each start.
    """
    folder, text = _folder_and_text(grid_path, out, text)
    runs = plan.planned_runs(folder, text, plugins) if folder else None
    return None if folder is None or runs is None else _outlined(folder, text, runs)


def read_last_run(grid_path: Path, out: Path, text: str | None = None) -> tuple[Sweep, Plan] | None:
    """Return a sweep and its plan as it was last run with this text, for a grid whose plug-ins are missing."""
    folder, text = _folder_and_text(grid_path, out, text)
    saved = plan.plan_of_text(folder, text) if folder else None
    return None if folder is None or saved is None else (_outlined(folder, text, saved.runs), saved)


def _folder_and_text(grid_path: Path, out: Path, text: str | None) -> tuple[Path | None, str]:
    try:
        text = read_text(grid_path) if text is None else text
    except SourceError:  # building the grid reports it
        return None, ""
    return plan.sweep_folder(out, grid_path, text), text


def _outlined(folder: Path, text: str, runs: Sequence[PlannedRun]) -> Sweep:
    known = cast(tuple[RunConfig, ...], runs)  # only their keys, names and labels are used
    sweep = Sweep(Grid(folder.name, known, text), folder, known)
    sweep.epoch_costs = {run.label: run.setting.epoch_cost for run in runs if run.setting.epoch_cost is not None}
    journal = Journal(folder)
    for record in journal.read(epochs=False):
        sweep.add(record)
    if sweep.attempts:
        sweep.attempts = newest_attempts(journal.outline(sweep.attempts))
    return sweep


def describe_code(provenance: Mapping[str, Any]) -> str:
    """Return the version of the code and of torch, for a person."""
    code = (provenance["git_commit"] or provenance["packages"]["argmax-harness"] or "unknown")[:12]
    return f"{code}{' with changes' if provenance['git_dirty'] else ''}, torch {provenance['packages']['torch']}"


def differing_metric(repeat: EpochDone, attempt: Attempt) -> str | None:
    """Return a metric that differed when an epoch was recomputed, or None."""
    for known in attempt.epochs:
        if known.epoch == repeat.epoch:
            names = [name for name in known.metrics if not is_measured(name)]
            return next((name for name in names if repeat.metrics.get(name) != known.metrics[name]), None)
    return None
