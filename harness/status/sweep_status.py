"""The state of a sweep at this moment, for a terminal or as a JSON document: `harness status`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.status import json_document, terminal_summary
from harness.status.next_commands import NextCommand, after_status
from harness.status.time_left import RunProgress, runs_in_progress, seconds_left
from harness.storage import lease

if TYPE_CHECKING:
    from rich.console import Console

    from harness.storage.sweep_state import Sweep


@dataclass(frozen=True)
class Status:
    """A sweep, its driver, the runs in progress, the seconds that it still needs, and the next commands."""

    sweep: "Sweep"
    driver: lease.Holder | None
    running: Sequence[RunProgress]
    seconds_left: float | None
    next_commands: Sequence[NextCommand]


def sweep_status(sweep: "Sweep", grid_path: Path | None, out: Path, plugins: Sequence[Path]) -> Status:
    """Return the status of a sweep. Without a driver, its runs in progress count as interrupted.

    `grid_path` is None for a grid from a pipe that was never run: no command can name it.
    """
    driver = lease.holder(sweep.folder)
    if driver is None:
        sweep.mark_interrupted("no driver is alive; run the sweep again to continue")
    driven = driver is not None and not driver.expired
    running = runs_in_progress(sweep, time.time_ns() // 1_000_000)
    left_s = seconds_left(sweep, running) if driven else None
    return Status(sweep, driver, running, left_s, after_status(sweep, grid_path, out, plugins, driven=driven))


def show(console: "Console", found: Status, *, tracebacks: bool = False) -> None:
    """Print the status for a person."""
    if found.driver is not None:
        terminal_summary.say(console, f"{'last driven' if found.driver.expired else 'driven'} by {found.driver}")
    terminal_summary.show_running(console, found.running, found.seconds_left)
    terminal_summary.show_results(console, found.sweep)
    for text in terminal_summary.tracebacks(found.sweep) if tracebacks else ():
        console.print(f"\n{text}", highlight=False, markup=False, soft_wrap=True)
    terminal_summary.show_next(console, found.next_commands)


def to_text(found: Status) -> str:
    """Return the status as JSON."""
    known = json_document.document(
        found.sweep, found.next_commands, driver=found.driver, running=found.running, seconds_left=found.seconds_left
    )
    return json_document.to_text(known)
