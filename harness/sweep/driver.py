"""The driver of a sweep: it takes every record to the journal, the store and the terminal. Nothing else writes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.config import RunConfig
from harness.events import Checkpoint, EpochDone, Interrupted, Note, Record, Started, Weights, is_cut_short
from harness.execution.dispatch import Dispatch
from harness.execution.executor import Executor, ExecutorError, Job
from harness.execution.signals import Signals
from harness.options import Policy
from harness.status.progress import Progress
from harness.storage.checkpoint_files import CheckpointFiles
from harness.storage.journal import Journal
from harness.storage.lease import Lease
from harness.storage.sweep_state import Sweep, differing_metric
from harness.storage.weight_files import WeightFiles
from harness.sweep.store_thread import StoreThread


@dataclass
class Driver:
    """Takes every record of a sweep to its journal, its store and the terminal, in that order."""

    sweep: Sweep
    journal: Journal
    store: StoreThread
    progress: Progress
    lease: Lease
    conformance: str | None = None

    def __post_init__(self) -> None:
        self._checkpoints = CheckpointFiles(self.sweep.folder, self.progress.say)
        self._weights = WeightFiles(self.sweep.folder, self.progress.say)
        self._signals = Signals(first=lambda: None)
        self._plugin_runs: set[str] = set()

    def execute(
        self,
        runs: Sequence[RunConfig],
        executor: Executor,
        policy: Policy,
        more: Callable[[], Sequence[RunConfig]] = tuple,
        *,
        fail_fast: bool,
    ) -> bool:
        """Compute the runs, and then those that `more` returns, until it returns none.

        Return whether the user or the loss of the executor interrupted them.

        The first Ctrl-C (or SIGTERM) lets the current epochs finish and saves their state, the second stops at once.
        """
        self._checkpoints.keep_only(self.sweep.attempts)
        dispatch = Dispatch(executor, policy, self.job_for, self._say_stopping)
        self._signals = Signals(first=dispatch.stop)
        try:
            with self._signals:
                while runs and not dispatch.is_stopping:
                    self._plugin_runs |= {run.key for run in runs if run.estimator.source}
                    for record in dispatch.records(runs):
                        self.handle(record)
                        if fail_fast and record.event.kind in ("failed", "diverged"):
                            self.interrupt_running("stopped by --fail-fast")
                            return False
                    runs = () if dispatch.is_stopping else more()
        except KeyboardInterrupt:
            executor.close()
            self.interrupt_running("interrupted by the user")
            return True
        except ExecutorError as error:
            self.progress.say(f"stopped: {error}")
            executor.close()
            self.interrupt_running(str(error))
            return True
        return dispatch.is_stopping

    def _say_stopping(self) -> None:
        self.progress.say("stopping: the current epochs are finished and saved. Press Ctrl-C again to stop at once.")

    def job_for(self, run: RunConfig) -> Job:
        """Return the job of a run, with the checkpoint to resume from if there is one."""
        attempt = self.sweep.attempts.get(run.key)
        if attempt is None:
            self._checkpoints.discard(run.key)
            return Job(run)
        return Job(run, self._checkpoints.load(run.key, attempt))

    def handle(self, record: Record) -> None:
        """Store one record and show it. An epoch that a resumed run repeats is compared and not stored again."""
        self.lease.check()
        event, key = record.event, record.run_key
        if isinstance(event, Note):
            self.progress.note(event.text)
        elif isinstance(event, Checkpoint):
            self.journal.sync()
            self._checkpoints.save(key, event)
        elif not self._is_repeat(record) and (prepared := self._prepared(record)) is not None:
            self._store(prepared)
            self.progress.show(prepared)

    def _is_repeat(self, record: Record) -> bool:
        """Return whether a resumed run repeats this record. Print a note if its numbers differ."""
        event, attempt = record.event, self.sweep.attempts.get(record.run_key)
        if attempt is None or not attempt.is_repeat(event):
            return False
        if isinstance(event, EpochDone) and (name := differing_metric(event, attempt)) is not None:
            self.progress.say(f"note: {record.run_key}: {name} of epoch {event.epoch} differed when recomputed")
        return True

    def _prepared(self, record: Record) -> Record | None:
        """Return the record as it is stored: with the result of the plug-in checks, and weights moved to a file.

        None if the weights could not be stored.
        """
        event, key = record.event, record.run_key
        if isinstance(event, Started) and key in self._plugin_runs:
            return replace(record, event=Started({**event.provenance, "conformance": self.conformance}))
        if isinstance(event, Weights):
            if not self._weights.save(key, event):
                return None
            return replace(record, event=replace(event, content=b""))  # the store reads the file
        return record

    def _store(self, record: Record) -> None:
        event, key = record.event, record.run_key
        self.store.wait_for_room()
        with self._signals.held():  # a record in the journal also reaches the sweep and the store
            self.journal.append(record)
            attempt = self.sweep.add(record)
            self.store.write(record, attempt)
        is_new = isinstance(event, Started) and attempt.records[0] is record
        if is_new or (key in self.sweep.ends and not is_cut_short(event)):
            self._checkpoints.discard(key)
        if is_new:
            self._weights.discard(key)

    def interrupt_running(self, reason: str) -> None:
        """Record that the running runs were interrupted."""
        for key in self.sweep.active_keys():
            self.handle(Record.now(key, Interrupted(reason)))
