"""A sweep from start to end: which runs are still to do, what executes them, and what is stored before and after."""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import process_state
from harness.config import RunConfig
from harness.errors import UserError
from harness.events import Interrupted, Record, Skipped
from harness.execution.executor import Executor
from harness.execution.forecast import epoch_costs, longest_first
from harness.execution.local_executor import LocalExecutor
from harness.grid.load import Grid
from harness.options import Options
from harness.plugins.registry import load_registry
from harness.provenance import provenance
from harness.status import next_commands
from harness.status.progress import Progress
from harness.storage.journal import Journal
from harness.storage.lease import Lease
from harness.storage.plan import save_grid_text, save_plan
from harness.storage.sweep_state import FINISHED_ONLY, SETTLED, Sweep, describe_code, read_sweep
from harness.sweep.driver import Driver
from harness.sweep.store_thread import StoreThread
from reports.contract.text import without_passwords

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

EXIT_OK, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 130


class SweepError(UserError):
    """The sweep cannot start."""


def run_sweep(grid: Grid, options: Options, progress: Progress, selected: Sequence[RunConfig] | None = None) -> int:
    """Run what is not finished yet; return the exit code: 0 all finished, 1 some failed or diverged, 130 interrupted.

    Raises SweepError, LeaseError, JournalError or TrackingError. Once a run has started, only JournalError and
    LeaseError can be raised.
    """
    from harness import tracking

    uri = options.tracking_uri or tracking.default_uri(options.out)
    with Lease(_make_folder(options.out / grid.name)) as lease, Journal(lease.folder) as journal:
        for note in filter(None, [lease.note, truncation_note(journal)]):
            progress.say(f"note: {note}")
        sweep = read_sweep(grid, options.out, selected, FINISHED_ONLY if options.retry_failed else SETTLED)
        mark_abandoned_runs(sweep, journal)
        warn_of_other_code(sweep, progress)
        for line in sweep.decisions:  # what the results of earlier drivers have decided
            progress.say(line)
        executor = make_executor(options)
        runs = list(runs_with_device(sweep.to_do(retry_failed=options.retry_failed), executor, sweep, journal))
        executor.start(grid.growth.at_most if grid.growth is not None and not sweep.is_whole else len(runs))
        try:
            registry = load_registry(options.plugins)
            _save_plan(sweep, options, progress, registry, has_runs=bool(runs))
            starting = f"starting {len(executor)} workers; " if len(executor) else ""
            progress.say(f"{starting}runs are stored in {without_passwords(uri)}")
            store = StoreThread(lambda: tracking.Tracker(uri, out=options.out.absolute()), progress)
            driver = Driver(sweep, journal, store, progress, lease, options.conformance)
            code = _run_and_store(driver, runs, executor, options, registry)
        finally:
            executor.close()
            progress.close()
        interrupted = code == EXIT_INTERRUPTED
        lost = store.lost is not None
        progress.finish(sweep, store.lost, next_commands.after_run(sweep, options, interrupted=interrupted, lost=lost))
    return code


def _save_plan(sweep: Sweep, options: Options, progress: Progress, registry: "Registry", *, has_runs: bool) -> None:
    """Store the grid and its plan beside the journal, once every option has been accepted."""
    if has_runs:
        with process_state.preserved():
            sweep.epoch_costs = epoch_costs(sweep.grid.runs, registry)
    for line in save_plan(sweep.folder, sweep.grid, options.plan_fingerprint, options.plugins, sweep.epoch_costs):
        progress.say(line)
    if options.keeps_grid and options.grid_path is not None:
        save_grid_text(options.grid_path, sweep.grid.text, progress.say)


def _run_and_store(
    driver: Driver, runs: Sequence[RunConfig], executor: Executor, options: Options, registry: "Registry"
) -> int:
    """Run what is to do and store it. Return the exit code."""
    sweep, progress = driver.sweep, driver.progress
    with driver.store as store:
        store.open(sweep, options)
        gc.freeze()  # keep imported modules out of garbage collection and interpreter shutdown
        progress.start(sweep, runs)
        with process_state.preserved():
            ordered = longest_first(runs, registry)
        interrupted = driver.execute(
            ordered,
            executor,
            options.policy,
            lambda: _grow(driver, executor, options, registry),
            fail_fast=options.fail_fast,
        )
        counts = sweep.counts()
        if interrupted:
            code, status = EXIT_INTERRUPTED, "KILLED"
        elif counts["failed"] + counts["diverged"]:
            code, status = EXIT_SOME_FAILED, "FAILED"
        else:
            code, status = EXIT_OK, "FINISHED"
        store.close(status, counts)
    return code


def _grow(driver: Driver, executor: Executor, options: Options, registry: "Registry") -> list[RunConfig]:
    """Return the runs that the results ask for next, after plan and store know of them; none if that was all."""
    sweep = driver.sweep
    while blocks := sweep.grow(SETTLED | {"skipped"}):
        for line in (line for block in blocks for line in block.lines):
            driver.progress.say(line)
        new = [run for block in blocks for run in block.runs if sweep.status(run) not in SETTLED]
        runs = list(runs_with_device(new, executor, sweep, driver.journal))
        _save_plan(sweep, options, driver.progress, registry, has_runs=True)
        driver.store.extend(sweep)
        if runs:
            driver.progress.extend(runs)
            with process_state.preserved():
                return longest_first(runs, registry)
    return []


def make_executor(options: Options) -> Executor:
    """Return the executor that the options ask for."""
    if options.ray is not None:
        from harness.execution.ray_executor import RayExecutor

        return RayExecutor(options.ray, threads=options.threads, plugins=options.plugins, saving=options.saving)
    return LocalExecutor(
        workers=options.workers, threads=options.threads, plugins=options.plugins, saving=options.saving
    )


def warn_of_other_code(sweep: Sweep, progress: Progress) -> None:
    """Print a note if finished runs were made by other code than this, since their numbers may not be comparable."""
    here = describe_code(provenance())
    others = Counter(sweep.code_by_run[run.key] for run in sweep.grid.runs if run.key in sweep.code_by_run)
    for there, count in others.items():
        if there != here:
            runs = "finished run comes" if count == 1 else "finished runs come"
            progress.say(f"note: {count} {runs} from {there}; this is {here}. Use another --out to rerun them.")


def truncation_note(journal: Journal) -> str:
    """Return a note if the journal ended in the middle of a record, else an empty text."""
    if not journal.dropped_bytes:
        return ""
    return f"the last {journal.dropped_bytes} bytes of {journal.path} were an incomplete record; that work is repeated"


def mark_abandoned_runs(sweep: Sweep, journal: Journal) -> None:
    """Record the runs that a killed driver left running as interrupted, so that they are resumed."""
    for key in sweep.active_keys():
        record = Record.now(key, Interrupted("the driver of this run was killed"))
        journal.append(record)
        sweep.add(record)


def runs_with_device(
    runs: Sequence[RunConfig], executor: Executor, sweep: Sweep, journal: Journal
) -> Iterator[RunConfig]:
    """Yield the runs whose device is available. Record the others as skipped, with the reason."""
    reasons = {device: executor.missing_reason(device) for device in {run.device for run in runs}}
    for run in runs:
        reason = reasons[run.device]
        if reason is None:
            yield run
        elif sweep.ends.get(run.key) != Skipped(reason):
            record = Record.now(run.key, Skipped(reason))
            journal.append(record)
            sweep.add(record)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(
            f"{folder}: expected a folder to write to, got: {error.strerror}. Choose another with --out."
        ) from error
    return folder
