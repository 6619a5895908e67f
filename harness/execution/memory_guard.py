"""The memory guard: it stops one run in time, rather than let the machine swap or the system kill what it likes."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import psutil

LOOK_EVERY_S = 1.0
RESERVE = 0.02
"""Fraction of the machine's memory below which it is short, but at least MIN_RESERVE bytes."""
MIN_RESERVE = 200_000_000

Used = Callable[[], Mapping[str, int]]
"""Bytes that each run uses, by run key; asked for only when it is time to look."""


@final
class MemoryGuard:
    """Says which run to stop: one above the limit, or the largest once the machine is short of memory."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._looked_at_limit = self._looked_at_machine = time.monotonic()

    def over_limit(self, used: Used) -> tuple[str, str] | None:
        """Return the key of a run that uses more than the limit, and what to say of it."""
        now = time.monotonic()
        if self._limit is None or now - self._looked_at_limit < LOOK_EVERY_S:
            return None
        self._looked_at_limit = now
        for key, size in used().items():
            if size > self._limit:
                return key, f"used {megabytes(size)} of memory, more than the limit of {megabytes(self._limit)}"
        return None

    def victim(self, used: Used) -> tuple[str, str] | None:
        """Return the key of the largest run if the machine is short of memory, and what to say of it."""
        now = time.monotonic()
        if now - self._looked_at_machine < LOOK_EVERY_S:
            return None
        self._looked_at_machine = now
        if not self.is_tight() or not (sizes := used()):
            return None
        key = max(sizes, key=lambda key: sizes[key])
        return key, f"stopped, since only {megabytes(available())} of memory were left; it used {megabytes(sizes[key])}"

    def is_tight(self) -> bool:
        """Return whether the machine is short of memory."""
        return available() < max(MIN_RESERVE, int(RESERVE * psutil.virtual_memory().total))


_GROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Return the bytes that can still be had: of the machine, or of the control group if that has fewer."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no control group, or one without a limit ("max")
        return free


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
