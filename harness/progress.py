"""What a sweep shows while it runs: a live table on a terminal, plain lines elsewhere."""

import statistics
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from harness.config import RunConfig
from harness.events import TERMINAL, EpochDone, Event, Finished, Interrupted, Record, Started
from reports.visible import visible

if TYPE_CHECKING:
    from harness.sweep import Sweep


class Progress(ABC):
    """Follows a sweep: `start`, `show` each record, `finish`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._runs: dict[str, RunConfig] = {}
        self._epochs_done = self._epochs = 0
        self._begun = 0.0

    @abstractmethod
    def show(self, record: Record) -> None:
        """Show one record."""

    def start(self, sweep: "Sweep", runs: Sequence[RunConfig]) -> None:
        """Say what is going to happen; the clock of the remaining time starts here."""
        self._runs = {run.key: run for run in runs}
        done_epochs = {key: len(attempt.epochs) for key, attempt in sweep.attempts.items()}
        self._epochs = sum(run.training.epochs - done_epochs.get(run.key, 0) for run in runs)
        self._begun = time.monotonic()
        done = len(sweep.selected) - len(runs)
        begun = sum(done_epochs.get(run.key, 0) > 0 for run in runs)
        parts = [f"{sweep.grid.name}: {len(runs)} runs to do"]
        parts += [f"{begun} of them begun before"] * bool(begun) + [f"{done} already done or skipped"] * bool(done)
        self.say(", ".join(parts) + ".")

    def say(self, line: str) -> None:
        """Print one line above whatever is live."""
        self.console.print(visible(line), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:  # noqa: B027 only what is live has something to close
        """Give the terminal back, whatever happened."""

    def finish(self, sweep: "Sweep", tracking_lost: str | None) -> None:
        """Print what came of it."""
        self.close()
        if any(isinstance(end, Finished) for end in sweep.ends.values()):
            self.console.print(ranking(sweep))
        self.say(", ".join(f"{n} {status}" for status, n in sweep.counts().most_common()) + ".")
        for line in not_finished(sweep):
            self.say(line)
        if sweep.counts()["failed"] + sweep.counts()["diverged"]:
            self.say("Run the same command with --retry failed to try these again.")
        if tracking_lost:
            self.say("The tracking store lacks some of these runs; they can be replayed from the journal.")

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
            self._epochs_done += 1
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
            self._epochs_done += 1
        elif isinstance(record.event, TERMINAL):
            self._running.pop(record.run_key, None)
            if not is_retrying(record.event):
                self._bar.advance(self._task)
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
        for key, (started, *latest) in list(self._running.items()):
            run = self._runs[key]
            event = latest[-1].event if latest else None
            if isinstance(event, EpochDone):
                shown = [f"{event.metrics[m]:.1f}" if m in event.metrics else "–" for m in ("train/loss", "val/loss")]
                left = duration(epoch_s(started, *latest) * (run.training.epochs - event.epoch))
                table.add_row(escape(run.name), f"{event.epoch}/{run.training.epochs}", *shown, left)
            else:
                table.add_row(escape(run.name), f"0/{run.training.epochs}", "–", "–", "…")
        return Group(table, self._bar)


def epoch_s(started: Record, first: Record, latest: Record) -> float:
    """Return the seconds an epoch takes: between the first and the latest since the start, which may be one."""
    epochs = [record.event.epoch for record in (first, latest) if isinstance(record.event, EpochDone)]
    n = epochs[-1] - epochs[0]
    return (latest.time_ms - first.time_ms) / 1e3 / n if n else (first.time_ms - started.time_ms) / 1e3


def ranking(sweep: "Sweep") -> Table:
    """Return the settings, best mean test −ELBO first, with every value's range over seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for run in sweep.grid.runs:
        if isinstance(end := sweep.ends.get(run.key), Finished):
            values[run.label].append(end.metrics["test/neg_elbo"])
    table = Table(title="test −ELBO, nats per image (lower is better)", title_justify="left", box=None, pad_edge=False)
    table.add_column("setting", overflow="fold")
    for title in ("mean", "min–max", "seeds"):
        table.add_column(title, justify="right", no_wrap=True)
    for label, found in sorted(values.items(), key=lambda item: statistics.fmean(item[1])):
        table.add_row(
            escape(label), f"{statistics.fmean(found):.2f}", f"{min(found):.2f}–{max(found):.2f}", str(len(found))
        )
    return table


def not_finished(sweep: "Sweep") -> list[str]:
    """Return one line per reason for which runs failed, diverged or were skipped, with the runs it befell."""
    befell: dict[str, list[str]] = defaultdict(list)
    for run in sweep.grid.runs:
        if sweep.status(run) in ("failed", "diverged", "skipped", "interrupted"):
            befell[f"{sweep.status(run)}: {getattr(sweep.ends[run.key], 'error', '')}"].append(run.name)
    return [
        f"{why} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})" for why, names in befell.items()
    ]


def duration(seconds: float) -> str:
    """Return seconds as `3.2 s`, `45 s`, `12 min` or `3.4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def is_retrying(event: Event) -> bool:
    """Return whether a run has crashed and is going to be tried again: it has not come to its end."""
    return isinstance(event, Interrupted) and event.retrying


def _outcome(record: Record) -> str:
    event = record.event
    if isinstance(event, Finished):
        return f": test −ELBO {event.metrics['test/neg_elbo']:.2f} in {duration(event.metrics['time/total_s'])}"
    return f": {getattr(event, 'error', '')}"
