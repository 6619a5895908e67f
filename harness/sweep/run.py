"""The sweep: which runs are still to do, who computes them, and where every event goes.

The driver is the only writer.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import process_state
from harness.config import RunConfig
from harness.errors import UserError
from harness.events import Checkpoint, EpochDone, Interrupted, Note, Record, Skipped, Started, Weights, is_cut_short
from harness.execution.dispatch import Dispatch
from harness.execution.executor import Executor, Gone, Job, LocalExecutor
from harness.execution.forecast import epoch_costs, longest_first
from harness.execution.signals import Signals
from harness.grid.load import Grid
from harness.options import Options, Policy
from harness.plugins.registry import load_registry
from harness.provenance import provenance
from harness.status import next_commands
from harness.status.progress import Progress
from harness.storage.checkpoint_files import CheckpointFiles
from harness.storage.journal import Journal
from harness.storage.lease import Lease
from harness.storage.plan import freeze, keep_text
from harness.storage.sweep_state import Sweep, differing_metric, origin, read_sweep
from harness.storage.weight_files import WeightFiles
from harness.sweep.store_thread import Store
from reports.contract.text import without_passwords

if TYPE_CHECKING:
    pass


class SweepError(UserError):
    """The sweep cannot start."""


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

    Raises SweepError, LeaseError, JournalError or TrackingError, one line each. All but those of the journal and the
    lease come before any run starts.
    """
    from harness import tracking

    with Lease(_made(options.out / grid.name)) as lease, Journal(lease.folder) as journal:
        for note in filter(None, [lease.note, cut_note(journal)]):
            progress.say(f"note: {note}")
        sweep = read_sweep(grid, options.out, selected)
        close_abandoned(sweep, journal)
        warn_of_other_origins(sweep, progress)
        executor = make_executor(options)
        runs = list(skip_missing_devices(sweep.to_do(retry_failed=options.retry_failed), executor, sweep, journal))
        executor.start(len(runs))
        registry = load_registry(options.plugins)
        if runs:
            with process_state.kept():
                sweep.costs = epoch_costs(grid.runs, registry)
        for line in freeze(
            lease.folder, grid, options.code_version, options.plugins, sweep.costs
        ):  # nothing was refused
            progress.say(line)
        if options.keeps_grid and options.grid_path is not None:
            keep_text(options.grid_path, grid.text, progress.say)
        try:
            uri = options.tracking_uri or tracking.default_uri(options.out)
            starting = f"{len(executor)} workers start; " if len(executor) else ""
            progress.say(f"{starting}runs are stored in {without_passwords(uri)}")
            with Store(lambda: tracking.Tracker(uri, out=options.out.absolute()), progress) as store:
                store.open(sweep, options)
                gc.freeze()  # what is imported stays: neither collections nor the exit need to look at it
                progress.start(sweep, runs)
                driver = Driver(sweep, journal, store, progress, lease, options.conformance)
                with process_state.kept():
                    ordered = longest_first(runs, registry)
                interrupted = driver.execute(ordered, executor, options.policy, fail_fast=options.fail_fast)
                counts = sweep.counts()
                code = 130 if interrupted else 1 if counts["failed"] + counts["diverged"] else 0
                store.close("KILLED" if interrupted else "FAILED" if code else "FINISHED", counts)
        finally:
            executor.close()
            progress.close()
        commands = next_commands.after_run(sweep, options, interrupted=interrupted, lost=store.lost is not None)
        progress.finish(sweep, store.lost, commands)
    return code


def make_executor(options: Options) -> Executor:
    """Return what computes the runs."""
    if options.ray is not None:
        from harness.execution.ray import RayExecutor

        return RayExecutor(options.ray, threads=options.threads, plugins=options.plugins, saving=options.saving)
    return LocalExecutor(
        workers=options.workers, threads=options.threads, plugins=options.plugins, saving=options.saving
    )


@dataclass
class Driver:
    """Carries every record of a sweep to its journal, its store and the terminal, in that order."""

    sweep: Sweep
    journal: Journal
    store: Store
    progress: Progress
    lease: Lease
    conformance: str | None = None

    def __post_init__(self) -> None:
        self._checkpoints = CheckpointFiles(self.sweep.folder, self.progress.say)
        self._checkpoints.keep_only(self.sweep.attempts)
        self._models = WeightFiles(self.sweep.folder, self.progress.say)
        self._signals = Signals(first=lambda: None)
        self._of_plugins = {run.key for run in self.sweep.selected if run.estimator.source}

    def execute(self, runs: Sequence[RunConfig], executor: Executor, policy: Policy, *, fail_fast: bool) -> bool:
        """Compute the runs. Return whether that was interrupted, by the user or by the loss of what computes them.

        The first Ctrl-C (or SIGTERM) lets the epochs under way end and saves their state, the second stops at once.
        """
        dispatch = Dispatch(executor, policy, self.job_of, self._say_that_it_stops)
        self._signals = Signals(first=dispatch.stop)
        try:
            with self._signals:
                for record in dispatch.records(runs):
                    self.carry(record)
                    if fail_fast and record.event.kind in ("failed", "diverged"):
                        self.stop("stopped by --fail-fast")
                        return False
        except KeyboardInterrupt:
            executor.close()
            self.stop("interrupted by the user")
            return True
        except Gone as gone:
            self.progress.say(f"stopped: {gone}")
            executor.close()
            self.stop(str(gone))
            return True
        return dispatch.is_stopping

    def _say_that_it_stops(self) -> None:
        self.progress.say("stopping: the epochs under way are finished and saved. Ctrl-C again stops at once.")

    def job_of(self, run: RunConfig) -> Job:
        """Return the run with the checkpoint from which it may go on, if there is one."""
        attempt = self.sweep.attempts.get(run.key)
        if attempt is None:
            self._checkpoints.discard(run.key)
            return Job(run)
        return Job(run, self._checkpoints.load(run.key, attempt))

    def carry(self, record: Record) -> None:
        """Store one record and show it. What a run repeats since it went on from before it is compared, and dropped."""
        self.lease.check()
        event, key = record.event, record.run_key
        if isinstance(event, Note):
            self.progress.note(event.text)
            return
        if isinstance(event, Checkpoint):
            self.journal.sync()
            self._checkpoints.save(key, event)
            return
        if isinstance(event, Started) and key in self._of_plugins:
            event = Started({**event.provenance, "conformance": self.conformance})
            record = replace(record, event=event)
        attempt = self.sweep.attempts.get(key)
        if attempt is not None and attempt.is_repeat(event):
            if isinstance(event, EpochDone) and (name := differing_metric(event, attempt)) is not None:
                self.progress.say(f"note: {key}: {name} of epoch {event.epoch} came out otherwise when it was repeated")
            return
        if isinstance(event, Weights):
            if not self._models.keep(key, event):
                return
            record = replace(record, event=replace(event, content=b""))  # the store reads the file
        self.store.wait_for_room()
        with self._signals.held():  # what is in the journal is known to the sweep and comes to the store
            self.journal.append(record)
            attempt = self.sweep.add(record)
            self.store.write(record, attempt)
        is_new = isinstance(event, Started) and attempt.records[0] is record
        if is_new or (key in self.sweep.ends and not is_cut_short(event)):
            self._checkpoints.discard(key)
        if is_new:
            self._models.discard(key)
        self.progress.show(record)

    def stop(self, why: str) -> None:
        """Record that the runs under way were interrupted."""
        for key in self.sweep.live():
            self.carry(Record.now(key, Interrupted(why)))


def cut_note(journal: Journal) -> str:
    """Say so where the journal ended in the middle of a record."""
    if not journal.cut_bytes:
        return ""
    return f"the last {journal.cut_bytes} bytes of {journal.path} were no whole record; what they told is done again"


def close_abandoned(sweep: Sweep, journal: Journal) -> None:
    """Record as interrupted what a killed driver left running; such runs go on."""
    for key in sweep.live():
        record = Record.now(key, Interrupted("the driver of this run was killed"))
        journal.append(record)
        sweep.add(record)


def skip_missing_devices(
    runs: Sequence[RunConfig], executor: Executor, sweep: Sweep, journal: Journal
) -> Iterator[RunConfig]:
    """Yield the runs whose device is there; record the others as skipped, with the reason."""
    reasons = {device: executor.missing_reason(device) for device in {run.device for run in runs}}
    for run in runs:
        reason = reasons[run.device]
        if reason is None:
            yield run
        elif sweep.ends.get(run.key) != Skipped(reason):
            record = Record.now(run.key, Skipped(reason))
            journal.append(record)
            sweep.add(record)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(
            f"{folder}: expected a folder to write to, got: {error.strerror}. Choose another with --out."
        ) from error
    return folder
