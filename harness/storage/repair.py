"""The repair of a damaged journal: damaged lines are left out, and what they recorded is computed again.

Nobody knows which run a damaged line belonged to. But it leaves a gap in that run: epochs that do not count from 1, or
an end that does not follow the last epoch. Runs with a gap are left out as a whole and run again.
"""

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from harness import atomic_file
from harness.events import TERMINAL, EpochDone, Event, Finished, Latents, Picture, Weights
from harness.storage import checksummed_file
from harness.storage.attempt import Attempt, add_record
from harness.storage.journal import Journal, JournalError

_NEED_A_START = EpochDone | Picture | Latents | Weights | Finished


class Repaired(NamedTuple):
    """The number of damaged lines and of runs left out. `kept_as` is the damaged file, None if there was no damage."""

    n_lines: int
    n_runs: int
    kept_as: Path | None


def repair(folder: Path) -> Repaired:
    """Write the journal of a sweep again without its damaged lines. Call only while holding the lease.

    Raises JournalError if the disk refuses, and for records of another version.
    """
    journal = Journal(folder)
    newest: dict[str, Attempt] = {}
    n_damaged = 0
    for _, record in journal.read_lines():
        if record is None:
            n_damaged += 1
        else:
            add_record(record, newest)
    if not n_damaged:
        return Repaired(0, 0, None)
    incomplete = {key for key, attempt in newest.items() if not is_complete(attempt)}
    try:
        kept_as = _replace(journal, incomplete)
    except OSError as error:
        raise JournalError(
            f"{journal.path}: the repaired journal could not be written ({error.strerror}). Nothing was changed."
        ) from error
    return Repaired(n_damaged, len(incomplete), kept_as)


def is_complete(attempt: Attempt) -> bool:
    """Return whether an attempt has no gap: it has its starts, every epoch from 1 on, and its end after them."""
    events = [record.event for record in attempt.records]
    epochs = [event for event in events if isinstance(event, EpochDone)]
    counts = [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1))
    has_starts = not any(isinstance(event, _NEED_A_START) for event in (events[0], *_after_an_end(events)))
    ends = not isinstance(attempt.end, Finished) or (bool(epochs) and epochs[-1].step == attempt.end.step)
    return counts and has_starts and ends


def _after_an_end(events: Sequence[Event]) -> Iterator[Event]:
    return (after for before, after in pairwise(events) if isinstance(before, TERMINAL))


def _replace(journal: Journal, incomplete: set[str]) -> Path:
    """Replace the journal by the lines of all other runs. Return the path of the damaged one."""
    kept_as = checksummed_file.damaged_path(journal.path)
    with atomic_file.replacing(journal.path) as file:
        file.writelines(
            line for line, record in journal.read_lines() if record is not None and record.run_key not in incomplete
        )
        shutil.copyfile(journal.path, kept_as)
    return kept_as
