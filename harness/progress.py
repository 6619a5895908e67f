"""What a sweep shows while it runs: a live table on a terminal, plain lines elsewhere."""

import time
from abc import ABC, abstractmethod
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
from harness.events import TERMINAL, EpochDone, Event, Finished, Interrupted, Record, Started
from harness.next_steps import Step
from harness.quantities import duration
from harness.summary import say, show_next, show_outcome
from harness.underway import epoch_s
from reports.visible import NAME, visible

if TYPE_CHECKING:
    from harness.sweep import Sweep

ECHO = 8
"""So many columns stay free at the right: the terminal writes ^C there, and would start a line that nobody erases."""


class Progress(ABC):
    """Follows a sweep: `start`, `show` each record, `finish`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._runs: dict[str, RunConfig] = {}
        self._epochs_done = self._epochs = 0
        self._epochs_left: dict[str, int] = {}
        self._begun = 0.0
        self.sweep: Sweep | None = None
        self.steps: Sequence[Step] = ()

    @abstractmethod
    def show(self, record: Record) -> None:
        """Show one record."""

    def start(self, sweep: "Sweep", runs: Sequence[RunConfig]) -> None:
        """Say what is going to happen; the clock of the remaining time starts here."""
        self._runs = {run.key: run for run in runs}
        done_epochs = {key: len(attempt.epochs) for key, attempt in sweep.attempts.items()}
        self._epochs_left = {run.key: run.training.epochs - done_epochs.get(run.key, 0) for run in runs}
        self._epochs = sum(self._epochs_left.values())
        self._begun = time.monotonic()
        done = len(sweep.selected) - len(runs)
        begun = sum(done_epochs.get(run.key, 0) > 0 for run in runs)
        parts = [f"{sweep.grid.name}: {len(runs)} runs to do"]
        parts += [f"{begun} of them begun before"] * bool(begun) + [f"{done} already done or skipped"] * bool(done)
        self.say(", ".join(parts) + ".")

    def say(self, line: str) -> None:
        """Print one line above whatever is live."""
        say(self.console, line)

    def close(self) -> None:  # noqa: B027 only what is live has something to close
        """Give the terminal back, whatever happened."""

    def finish(self, sweep: "Sweep", tracking_lost: str | None, steps: Sequence[Step] = ()) -> None:
        """Print what came of it, and what comes next; both stay known."""
        self.close()
        self.sweep, self.steps = sweep, steps
        show_outcome(self.console, sweep)
        if tracking_lost:
            self.say("The tracking store lacks some of these runs; they can be replayed from the journal.")
        show_next(self.console, steps)

    def _count_epoch(self, run_key: str) -> None:
        self._epochs_done += 1
        self._epochs_left[run_key] = max(0, self._epochs_left.get(run_key, 0) - 1)

    def remaining(self) -> str:
        """Return the time left as text, from the epochs done so far."""
        if not self._epochs_done:
            return "…"
        elapsed = time.monotonic() - self._begun
        return duration(elapsed / self._epochs_done * (self._epochs - self._epochs_done))


@final
class PlainProgress(Progress):
    """One line when a run starts and when it ends."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._ended = 0

    def show(self, record: Record) -> None:
        run = self._runs[record.run_key]
        if isinstance(record.event, EpochDone):
            self._count_epoch(record.run_key)
        elif is_retrying(record.event):
            self.say(f"crashed: {run.name}{_outcome(record)}")
        elif isinstance(record.event, TERMINAL):
            self._ended += 1
            self.say(f"[{self._ended}/{len(self._runs)}] {record.event.kind}: {run.name}{_outcome(record)}")


@final
class LiveProgress(Progress):
    """A table of the running runs and an overall bar, redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._running: dict[str, list[Record]] = {}  # its start, its first epoch since then, its latest
        self._bar = Bar(
            TextColumn("runs"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.description}"), console=console
        )  # fmt: skip
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def start(self, sweep: "Sweep", runs: Sequence[RunConfig]) -> None:
        super().start(sweep, runs)
        self._task = self._bar.add_task("…", total=len(runs))
        self._live.start()

    def show(self, record: Record) -> None:
        if isinstance(record.event, Started):
            self._running[record.run_key] = [record]
        elif isinstance(record.event, EpochDone):
            seen = self._running[record.run_key]
            seen[2:] = [record] if len(seen) > 1 else [record, record]
            self._count_epoch(record.run_key)
        elif isinstance(record.event, TERMINAL):
            self._running.pop(record.run_key, None)
            if not is_retrying(record.event):
                self._bar.advance(self._task)
                self._epochs -= self._epochs_left.pop(record.run_key, 0)  # of one that failed, they do not come
            if not isinstance(record.event, Finished):
                kind = "crashed" if is_retrying(record.event) else record.event.kind
                self.say(f"{kind}: {self._runs[record.run_key].name}{_outcome(record)}")
        self._bar.update(self._task, description=f"{self.remaining()} left")

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
                shown = [f"{event.metrics[m]:.1f}" if m in event.metrics else "–" for m in ("train/loss", "val/loss")]
                left = duration(epoch_s(started, *latest) * (run.training.epochs - event.epoch))
                table.add_row(Text(visible(run.name, NAME)), f"{event.epoch}/{run.training.epochs}", *shown, left)
            else:
                table.add_row(Text(visible(run.name, NAME)), f"0/{run.training.epochs}", "–", "–", "…")
        more = len(self._running) - n_rows
        lines = [Text(f"… and {more} more")] if more > 0 else []
        return Constrain(Group(table, *lines, self._bar), max(20, self.console.width - ECHO))


def is_retrying(event: Event) -> bool:
    """Return whether a run has crashed and is going to be tried again: it has not come to its end."""
    return isinstance(event, Interrupted) and event.retrying


def _outcome(record: Record) -> str:
    event = record.event
    if isinstance(event, Finished):
        return f": test −ELBO {event.metrics['test/neg_elbo']:.2f} in {duration(event.metrics['time/total_s'])}"
    return f": {getattr(event, 'error', '')}"
