"""The memory guard: it stops one run before the machine swaps or the system kills a process."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import psutil

LOOK_EVERY_S = 1.0
RESERVE = 0.02
"""Memory is short if less than this fraction of the machine's is left, or less than MIN_RESERVE bytes."""
MIN_RESERVE = 200_000_000

Used = Callable[[], Mapping[str, int]]
"""Returns the bytes that each run uses, by run key. It is called only when a check is due."""


@final
class MemoryGuard:
    """Chooses the run to stop: one above the limit, or the largest one if memory is short."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._looked_at_limit = self._looked_at_machine = time.monotonic()

    def over_limit(self, used: Used) -> tuple[str, str] | None:
        """Return the key of a run that uses more than the limit, and the reason in words."""
        now = time.monotonic()
        if self._limit is None or now - self._looked_at_limit < LOOK_EVERY_S:
            return None
        self._looked_at_limit = now
        for key, size in used().items():
            if size > self._limit:
                return key, f"used {megabytes(size)} of memory, more than the limit of {megabytes(self._limit)}"
        return None

    def largest_if_short(self, used: Used) -> tuple[str, str] | None:
        """Return the key of the largest run if memory is short, and the reason in words."""
        now = time.monotonic()
        if now - self._looked_at_machine < LOOK_EVERY_S:
            return None
        self._looked_at_machine = now
        if not self.is_short() or not (sizes := used()):
            return None
        key = max(sizes, key=lambda key: sizes[key])
        why = f"stopped because only {megabytes(available())} of memory were left; it used {megabytes(sizes[key])}"
        return key, why

    def is_short(self) -> bool:
        """Return whether memory is short."""
        return available() < max(MIN_RESERVE, int(RESERVE * psutil.virtual_memory().total))


_GROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Return the free bytes of the machine, or of the control group if that has fewer."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no control group, or one without a limit ("max")
        return free


def megabytes(size: float) -> str:
    """Return a size in words."""
    return f"{size / 1e6:,.0f} MB"
