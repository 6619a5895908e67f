"""What a worker process does: receive jobs, train their runs and send the records back."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from harness.events import Failed, Record
from harness.execution.executor import Job
from harness.options import SavingEvery
from harness.terminal import Output

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.training.run_controls import RunControls

STOP = b"stop"
"""The message that asks a worker to end its run after the current epoch."""


def work(connection: Connection, threads: int, plugins: Sequence[str], saving: SavingEvery) -> None:
    """Receive jobs and send their records until the driver closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)  # a plug-in may print
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    prepare_process(threads)
    from harness.plugins.registry import load_registry
    from harness.training.run_controls import RunControls

    registry = load_registry([Path(path) for path in plugins])
    gc.freeze()  # collections during training need not look at imported modules
    try:
        while True:
            message = connection.recv_bytes()
            if message == STOP:  # it arrived after the run had ended
                continue
            is_stopping = connection.poll  # during a run, STOP is the only message that can arrive
            controls = RunControls(saving.seconds, saving.epochs, is_stopping=is_stopping, keeps_model=saving.model)
            for record in train_to_records(Job.from_bytes(message), registry, controls):
                connection.send_bytes(record.to_bytes())
    except (EOFError, ConnectionError):  # the driver closed the pipe or died
        return


def _exit_with_driver() -> None:
    """End this process when the driver ends, for whatever reason. The next driver resumes the run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def prepare_process(threads: int) -> None:
    """Apply the torch settings that every run relies on, whichever executor computes it."""
    import torch

    from harness.devices import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def train_to_records(
    job: Job, registry: "Mapping[str, type[Estimator]]", controls: "RunControls | None" = None
) -> Iterator[Record]:
    """Train one run and yield its records. An exception becomes a `Failed` record, so that the sweep goes on."""
    from harness import process_state
    from harness.plugins import errors
    from harness.plugins.registry import tasks_of
    from harness.train import train

    run, before = job.run, process_state.snapshot()
    try:
        for event in train(run, registry, job.checkpoint, controls):
            yield Record.now(run.key, event)
    except Exception as error:  # noqa: BLE001 any exception of a user's estimator is that run's failure
        line = errors.in_one_line(error, registry.get(run.estimator.name), tasks_of(registry).get(run.task_name))
        text = "".join(traceback.format_exception(error))
        yield Record.now(run.key, Failed(line, text, crashed=is_out_of_memory(error)))
    finally:
        process_state.restore(before)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out. That depends on what else runs, so another try may succeed."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
