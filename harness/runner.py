"""The sweep: which runs are still to do, who computes them, and where every event goes.

The driver is the only writer.
"""

import fcntl
import gc
import os
import platform
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import RunConfig
from harness.devices import missing_reason
from harness.events import TERMINAL, Event, Interrupted, Record, Skipped, Started
from harness.executors import LocalExecutor
from harness.forecast import longest_first
from harness.grid import Grid
from harness.journal import Attempt, Journal, attempts
from harness.plugins import load_registry
from harness.progress import Progress
from harness.provenance import provenance, without_passwords
from harness.store import Store


class SweepError(Exception):
    """The sweep cannot start; the message is one line."""


@dataclass(frozen=True)
class Options:
    """How a sweep is run; none of it is part of a run's key."""

    out: Path
    workers: int
    threads: int = 1
    tracking_uri: str | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    plugins: Sequence[Path] = ()
    command: str = ""


@dataclass
class Sweep:
    """One grid and what is known of its runs: `ends` has the terminal event of every run that ended."""

    grid: Grid
    folder: Path
    selected: tuple[RunConfig, ...]
    ends: dict[str, Event] = field(default_factory=dict)
    live: dict[str, Attempt] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # the code that finished runs were made with

    def status(self, run: RunConfig) -> str:
        if run.key in self.live:
            return "running"
        end = self.ends.get(run.key)
        return end.kind if end is not None else "planned"

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
    for key, attempt in attempts(Journal(sweep.folder).read(pictures=False)).items():
        if attempt.end is not None:
            sweep.ends[key] = attempt.end
            first = attempt.records[0].event
            if attempt.status == "finished" and isinstance(first, Started):
                sweep.origins[key] = origin(first.provenance)
        else:
            sweep.live[key] = attempt
    return sweep


def origin(facts: Mapping[str, Any]) -> str:
    """Return what numbers depend on besides the configuration: the code and torch, as text."""
    code = (facts["git_commit"] or facts["packages"]["argmax-harness"] or "unknown")[:12]
    return f"{code}{' with changes' if facts['git_dirty'] else ''}, torch {facts['packages']['torch']}"


def warn_of_other_origins(sweep: Sweep, progress: Progress) -> None:
    """Say so where finished runs were made by other code than this: the numbers may not compare."""
    here = origin(provenance())
    others = Counter(sweep.origins[run.key] for run in sweep.grid.runs if run.key in sweep.origins)
    for there, count in others.items():
        if there != here:
            progress.say(
                f"note: {count} finished runs come from {there}; this is {here}. Another --out runs them again."
            )


def run_sweep(grid: Grid, options: Options, progress: Progress, selected: Sequence[RunConfig] | None = None) -> int:
    """Run what is not finished yet; return the exit code: 0 all finished, 1 some failed or diverged, 130 interrupted.

    Raises SweepError, JournalError or TrackingError, one line each, before any run starts.
    """
    from harness import tracking

    sweep_folder = _writable(options.out / grid.name)
    with _locked(sweep_folder), Journal(sweep_folder) as journal:
        sweep = read_sweep(grid, options.out, selected)
        close_abandoned(sweep, journal)
        warn_of_other_origins(sweep, progress)
        runs = sweep.to_do(retry_failed=options.retry_failed)
        runs = list(skip_missing_devices(runs, sweep, journal))
        executor = LocalExecutor(workers=options.workers, threads=options.threads, plugins=options.plugins)
        executor.start(len(runs))
        try:
            uri = options.tracking_uri or tracking.default_uri(options.out)
            starting = f"{len(executor)} workers start; " if len(executor) else ""
            progress.say(f"{starting}runs are stored in {without_passwords(uri)}")
            with Store(tracking.Tracker(uri, out=options.out.absolute()), progress) as store:
                store.open(sweep, options)
                gc.freeze()  # what is imported stays: neither collections nor the exit need to look at it
                progress.start(sweep, runs)
                ordered = longest_first(runs, load_registry(options.plugins))
                interrupted = execute(ordered, executor, sweep, journal, store, progress, fail_fast=options.fail_fast)
                counts = sweep.counts()
                code = 130 if interrupted else 1 if counts["failed"] + counts["diverged"] else 0
                store.close("KILLED" if interrupted else "FAILED" if code else "FINISHED", counts)
        finally:
            executor.close()
            progress.close()
        progress.finish(sweep, store.lost)
        if interrupted:
            progress.say("next: the same command again does what is left")
        progress.say(f"next: {next_command(grid.name, options)}")
    return code


def next_command(name: str, options: Options) -> str:
    """Return the command that makes the report of this sweep."""
    command = ["harness", "report", "--experiment", name]
    if options.out != Path("results"):
        command += ["--from", str(options.out)]
    if options.tracking_uri is not None:
        command += ["--tracking-uri", options.tracking_uri]
    return without_passwords(shlex.join(command))


def execute(
    runs: Sequence[RunConfig],
    executor: LocalExecutor,
    sweep: Sweep,
    journal: Journal,
    store: Store,
    progress: Progress,
    *,
    fail_fast: bool,
) -> bool:
    """Carry every record to journal, store and terminal, in that order. Return whether the user interrupted."""
    records = executor.execute(runs)
    try:
        for record in records:
            carry(record, sweep, journal, store, progress)
            if fail_fast and record.event.kind in ("failed", "diverged"):
                stop(sweep, journal, store, progress, "stopped by --fail-fast")
                return False
    except KeyboardInterrupt:
        executor.close()
        stop(sweep, journal, store, progress, "interrupted by the user")
        return True
    return False


def carry(record: Record, sweep: Sweep, journal: Journal, store: Store, progress: Progress) -> None:
    """Store one record and show it."""
    journal.append(record)
    attempt = sweep.live.setdefault(record.run_key, Attempt())
    attempt.records.append(record)
    if isinstance(record.event, TERMINAL):
        del sweep.live[record.run_key]
        sweep.ends[record.run_key] = record.event
    store.write(record, attempt)
    progress.show(record)


def stop(sweep: Sweep, journal: Journal, store: Store, progress: Progress, why: str) -> None:
    """Record that the runs under way were interrupted."""
    for key in list(sweep.live):
        carry(Record.now(key, Interrupted(why)), sweep, journal, store, progress)


def close_abandoned(sweep: Sweep, journal: Journal) -> None:
    """Record as interrupted what a killed driver left running; such runs start again."""
    for key in list(sweep.live):
        event = Interrupted("the driver of this run was killed")
        journal.append(Record.now(key, event))
        del sweep.live[key]
        sweep.ends[key] = event


def skip_missing_devices(runs: Sequence[RunConfig], sweep: Sweep, journal: Journal) -> Iterator[RunConfig]:
    """Yield the runs whose device this machine has; record the others as skipped, with the reason."""
    reasons = {device: missing_reason(device) for device in {run.device for run in runs}}
    for run in runs:
        reason = reasons[run.device]
        if reason is None:
            yield run
        elif sweep.ends.get(run.key) != Skipped(reason):
            journal.append(Record.now(run.key, Skipped(reason)))
            sweep.ends[run.key] = Skipped(reason)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SweepError(
            f"{folder}: expected a folder to write to, got: {error.strerror}. Choose another with --out."
        ) from error
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Refuse a second driver on the same sweep. The lock goes with the process that holds it."""
    with (folder / "driver.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise SweepError(
                f"{folder}: expected no other driver on this sweep, got one ({file.read().strip() or 'unknown'}). "
                "Wait for it, or choose another --out."
            ) from None
        file.truncate(0)
        file.write(f"{platform.node()}, process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
        file.truncate(0)
