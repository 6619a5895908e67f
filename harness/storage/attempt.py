"""Attempts: the records of one try to compute a run, and which records belong to the same try."""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field

from harness.events import TERMINAL, EpochDone, Event, Latents, Picture, Record, Started, Weights, is_cut_short
from harness.provenance import code_version


@dataclass
class Attempt:
    """One attempt at a run. A resumed run continues its attempt; a run that starts again begins a new one."""

    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> Event | None:
        """The event that ended the attempt, or None if it is active or its driver was killed."""
        last = self.records[-1].event if self.records else None
        return last if isinstance(last, TERMINAL) else None

    @property
    def status(self) -> str:
        return self.end.kind if self.end is not None else "running"

    @property
    def epochs(self) -> list[EpochDone]:
        return [r.event for r in self.records if isinstance(r.event, EpochDone)]

    @property
    def code_version(self) -> tuple[str | None, str | None] | None:
        """The code that computes it, as `provenance.code_version` returns it, or None if it never started."""
        first = self.records[0].event
        return code_version(first.provenance) if isinstance(first, Started) else None

    @property
    def begun_ms(self) -> int:
        """When it began. This identifies the attempt among those at the same run."""
        return self.records[0].time_ms

    def includes(self, event: Event) -> bool:
        """Return whether the run's next event belongs to this attempt.

        Every event does, except a start that begins a new attempt. A start continues an attempt that was cut short if
        the same code made both.
        """
        if not isinstance(event, Started) or self.code_version is None:
            return not isinstance(event, Started)
        return (
            is_cut_short(self.end)
            and self.code_version[0] is not None
            and code_version(event.provenance) == self.code_version
        )

    def is_repeat(self, event: Event) -> bool:
        """Return whether the attempt already has this event, because it was resumed from an earlier checkpoint."""
        if isinstance(event, EpochDone):
            return any(known.epoch == event.epoch for known in self.epochs)
        known = (record.event for record in self.records)
        if isinstance(event, Picture):
            return (event.name, event.step) in ((e.name, e.step) for e in known if isinstance(e, Picture))
        return isinstance(event, Latents | Weights) and any(type(e) is type(event) for e in known)


def add_record(record: Record, newest: MutableMapping[str, Attempt]) -> Attempt:
    """Add a record to the newest attempt at its run, or begin a new attempt with it. Return that attempt."""
    attempt = newest.get(record.run_key)
    if attempt is None or not attempt.includes(record.event):
        attempt = newest[record.run_key] = Attempt()
    attempt.records.append(record)
    return attempt


def newest_attempts(records: Iterable[Record]) -> dict[str, Attempt]:
    """Return the newest attempt at each run."""
    newest: dict[str, Attempt] = {}
    for record in records:
        add_record(record, newest)
    return newest
