"""A journal that a disk has damaged, without its damaged lines: what they told is computed again, the rest is kept.

Which run a damaged line told of cannot be known. But it leaves a gap there: epochs that do not count from 1, or an end
that is not after the last of them. Such runs are left out as a whole, and run again.
"""

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from harness import atomic_file
from harness.events import TERMINAL, EpochDone, Event, Finished, Image, Latents, Record, Weights
from harness.storage import checksummed_file
from harness.storage.attempt import Attempt, add_record
from harness.storage.journal import Journal, JournalError


class Repaired(NamedTuple):
    """What became of a journal; `kept_as` is the file with all that was in it, None where it was whole."""

    n_lines: int
    n_runs: int
    kept_as: Path | None


def repair(folder: Path) -> Repaired:
    """Write the journal of a sweep again without its damaged lines. Raises JournalError where the disk refuses,
    and for records of another version.

    Only for who holds the lease of the folder.
    """
    journal = Journal(folder)
    newest: dict[str, Attempt] = {}
    n_damaged = 0
    for _, record in journal.lines():
        if record is None:
            n_damaged += 1
        else:
            add_record(record, newest)
    if not n_damaged:
        return Repaired(0, 0, None)
    gaps = {key for key, attempt in newest.items() if not is_whole(attempt)}
    try:
        kept_as = _replace(journal, gaps)
    except OSError as error:
        raise JournalError(
            f"{journal.path}: expected to write the journal again, got: {error.strerror}. It is as it was."
        ) from error
    return Repaired(n_damaged, len(gaps), kept_as)


def is_whole(attempt: Attempt) -> bool:
    """Return whether an attempt tells all of itself: its starts, each epoch from the first on, an end after them."""
    events = [record.event for record in attempt.records]
    epochs = [event for event in events if isinstance(event, EpochDone)]
    counts = [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1))
    has_starts = not any(isinstance(event, _NEED_A_START) for event in (events[0], *_after_an_end(events)))
    ends = not isinstance(attempt.end, Finished) or (bool(epochs) and epochs[-1].step == attempt.end.step)
    return counts and has_starts and ends


_NEED_A_START = EpochDone | Image | Latents | Weights | Finished


def _after_an_end(events: Sequence[Event]) -> Iterator[Event]:
    return (after for before, after in pairwise(events) if isinstance(before, TERMINAL))


def _replace(journal: Journal, gaps: set[str]) -> Path:
    """Put the lines of all other runs in the journal's place, with one rename; return the copy of the former file."""
    kept_as = checksummed_file.damaged_path(journal.path)
    with atomic_file.replacing(journal.path) as file:
        file.writelines(_kept(journal, gaps))
        shutil.copyfile(journal.path, kept_as)
    return kept_as


def _kept(journal: Journal, gaps: set[str]) -> Iterator[bytes]:
    records: Iterator[tuple[bytes, Record | None]] = journal.lines()
    return (line for line, record in records if record is not None and record.run_key not in gaps)
