"""The display of a running sweep: a live table on a terminal, plain lines elsewhere."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from harness.config import RunConfig
from harness.events import TERMINAL, Diverged, EpochDone, Event, Failed, Finished, Interrupted, Record, Started
from harness.status.next_commands import NextCommand
from harness.status.ranking import decimals_of
from harness.status.terminal_summary import cause, say, show_next, show_results
from harness.status.time_left import run_progress, seconds_left
from harness.units import duration
from reports.contract.stored_run import TOTAL_S, TRAIN_LOSS, VAL_LOSS
from reports.contract.text import NAME_LENGTH, visible

if TYPE_CHECKING:
    from harness.storage.sweep_state import Sweep

ECHO = 8
"""Columns that stay free at the right: the terminal echoes ^C there, which would otherwise leave a line."""


class Progress(ABC):
    """The display of a sweep: call `start`, `show` for each record, then `finish`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._runs: dict[str, RunConfig] = {}
        self._notes: set[str] = set()
        self._causes: Counter[str] = Counter()
        self.sweep: Sweep | None = None
        self.next_commands: Sequence[NextCommand] = ()

    @abstractmethod
    def show(self, record: Record) -> None:
        """Show one record."""

    def start(self, sweep: "Sweep", runs: Sequence[RunConfig]) -> None:
        """Print what is going to happen."""
        self.sweep = sweep
        self._runs = {run.key: run for run in runs}
        done = len(sweep.selected) - len(runs)
        started = sum(bool(run.key in sweep.attempts and sweep.attempts[run.key].epochs) for run in runs)
        parts = [f"{sweep.grid.name}: {len(runs)} runs to do"]
        parts += [f"{started} of them started before"] * bool(started) + [f"{done} already done or skipped"] * bool(
            done
        )
        self.say(", ".join(parts) + ".")

    def extend(self, runs: Sequence[RunConfig]) -> None:
        """Take the runs of a plan that has grown."""
        self._runs |= {run.key: run for run in runs}

    def say(self, line: str) -> None:
        """Print one line above the live table."""
        say(self.console, line)

    def note(self, text: str) -> None:
        """Print a note once, however many runs send it."""
        if text not in self._notes:
            self._notes.add(text)
            self.say(f"note: {text}")

    def close(self) -> None:  # noqa: B027 only the live table has something to close
        """Release the terminal."""

    def finish(self, sweep: "Sweep", tracking_lost: str | None, next_commands: Sequence[NextCommand] = ()) -> None:
        """Print the results and the next commands, and keep both."""
        self.close()
        self.sweep, self.next_commands = sweep, next_commands
        show_results(self.console, sweep)
        if tracking_lost:
            self.say("Some runs are missing from the tracking store. harness sync adds them from the journal.")
        show_next(self.console, next_commands)

    def _result(self, record: Record) -> str:
        """Return the result of a run. The same cause of failure is printed in full once, and counted after that."""
        event = record.event
        if isinstance(event, Finished):
            run = self._runs[record.run_key]
            measure = run.measures[0]
            value = event.metrics[run.result_metric]
            split = "test" if run.trial is None else "validation"
            shown = f"{split} {measure.shown} {value:.{decimals_of([value], measure)}f}"
            return visible(f": {shown} in {duration(event.metrics[TOTAL_S])}")
        error = getattr(event, "error", "")
        if not isinstance(event, Failed | Diverged):
            return f": {error}"
        self._causes[cause(error)] += 1
        count = self._causes[cause(error)]
        return f": {error}" if count == 1 else f": the same as above, {count} times so far"


@final
class PlainProgress(Progress):
    """One line when a run starts and when it ends."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._ended = 0

    def show(self, record: Record) -> None:
        run = self._runs[record.run_key]
        if is_retrying(record.event):
            self.say(f"crashed: {run.name}{self._result(record)}")
        elif isinstance(record.event, TERMINAL):
            self._ended += 1
            self.say(f"[{self._ended}/{len(self._runs)}] {record.event.kind}: {run.name}{self._result(record)}")


@final
class LiveProgress(Progress):
    """A table of the running runs and an overall bar, redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._running: dict[str, list[Record]] = {}  # its start, its first and its latest epoch since then
        self._waiting: dict[str, RunConfig] = {}
        self._next_update = 0.0
        self._bar = Bar(
            TextColumn("runs"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.description}"), console=console
        )  # fmt: skip
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def start(self, sweep: "Sweep", runs: Sequence[RunConfig]) -> None:
        super().start(sweep, runs)
        self._waiting = dict(self._runs)
        self._task = self._bar.add_task("…", total=len(runs))
        self._live.start()

    def extend(self, runs: Sequence[RunConfig]) -> None:
        super().extend(runs)
        self._waiting |= {run.key: run for run in runs}
        self._bar.update(self._task, total=len(self._runs))

    def show(self, record: Record) -> None:
        key, event = record.run_key, record.event
        if isinstance(event, Started):
            self._running[key] = [record]
            self._waiting.pop(key, None)
            self._next_update = 0.0
        elif isinstance(event, EpochDone):
            seen = self._running[key]
            seen[2:] = [record] if len(seen) > 1 else [record, record]
        elif isinstance(event, TERMINAL):
            self._running.pop(key, None)
            if is_retrying(event):
                self._waiting[key] = self._runs[key]
            else:
                self._waiting.pop(key, None)
                self._bar.advance(self._task)
            if not isinstance(event, Finished):
                kind = "crashed" if is_retrying(event) else event.kind
                self.say(f"{kind}: {self._runs[key].name}{self._result(record)}")
        is_between_runs = isinstance(event, TERMINAL) and bool(self._waiting)
        if (now := time.monotonic()) >= self._next_update and not is_between_runs:
            self._bar.update(self._task, description=self.remaining(time.time_ns() // 1_000_000))
            self._next_update = now + max(1.0, 50 * (time.monotonic() - now))  # slow for a large sweep

    def remaining(self, now_ms: int) -> str:
        """Return the time left as text, or … while nothing was measured yet."""
        running = [run_progress(self._runs[key], records, now_ms) for key, records in self._running.items()]
        left_s = seconds_left(self.sweep, running, self._waiting.values()) if self.sweep is not None else None
        return "…" if left_s is None else f"about {duration(left_s)} left"

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("running", ratio=1, no_wrap=True, overflow="ellipsis")
        for title in ("epoch", "train", "val", "left"):
            table.add_column(title, justify="right", no_wrap=True)
        n_rows = max(1, self.console.height - len(("header", "more", "bar", "line of the cursor")))
        for key, (started, *latest) in list(self._running.items())[:n_rows]:
            run = self._runs[key]
            event = latest[-1].event if latest else None
            if isinstance(event, EpochDone):
                form = ".1f" if run.task is None else ".3g"
                shown = [f"{event.metrics[m]:{form}}" if m in event.metrics else "–" for m in (TRAIN_LOSS, VAL_LOSS)]
                here = run_progress(run, [started, *latest], latest[-1].time_ms)
                left = "…" if here.left_s is None else duration(here.left_s)
                table.add_row(
                    Text(visible(run.name, NAME_LENGTH)), f"{event.epoch}/{run.training.epochs}", *shown, left
                )
            else:
                table.add_row(Text(visible(run.name, NAME_LENGTH)), f"0/{run.training.epochs}", "–", "–", "…")
        more = len(self._running) - n_rows
        lines = [Text(f"… and {more} more")] if more > 0 else []
        return Constrain(Group(table, *lines, self._bar), max(20, self.console.width - ECHO))


def is_retrying(event: Event) -> bool:
    """Return whether a run has crashed and will be retried, so that it has not ended."""
    return isinstance(event, Interrupted) and event.retrying
