"""What a sweep has come to, for a reader of a terminal: the ranking, the counts, what failed, what comes next.

Everything fits the width of the console, at least 60 columns: labels fold, numbers do not.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.events import Failed
from harness.status.next_commands import NextCommand
from harness.status.ranking import RankedSetting, notes, rank
from harness.status.t_interval import Mean
from harness.status.time_left import RunProgress
from harness.units import duration
from reports.contract.text import NAME, visible, visible_lines

if TYPE_CHECKING:
    from harness.storage.sweep_state import Sweep

SHOWN = 20
"""At most so many rows of a table and groups of failures are shown."""

_STEP = re.compile(r" \(step \d+, epoch \d+\)| at step \d+ \(epoch \d+\)| after epoch \d+$")

NARROW = 72
"""In fewer columns the numbers stand closer together, for the sake of the labels."""


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long: it may be copied or searched for."""
    console.print(visible(line), highlight=False, markup=False, soft_wrap=True)


def note(console: Console, line: str) -> None:
    """Print a sentence, folded at the width of the console."""
    console.print(visible(line), highlight=False, markup=False)


def show_outcome(console: Console, sweep: "Sweep") -> None:
    """Print the ranking, if a run has finished, the counts, and what failed or was cut short."""
    levels = rank(sweep)
    if any(level.value is not None for level in levels):
        shown = [level for level in levels if level.is_tried][:SHOWN]
        console.print(table(shown, of_one=len(levels) == 1, narrow=console.width < NARROW))
        for line in notes(shown, levels):
            note(console, line)
    say(console, ", ".join(f"{n} {status}" for status, n in sweep.counts().most_common()) + ".")
    reasons = not_finished(sweep)
    for line in reasons[:SHOWN]:
        say(console, line)
    if len(reasons) > SHOWN:
        say(console, f"… and {len(reasons) - SHOWN} more: --json and the report have all.")


def show_next(console: Console, next_commands: Sequence[NextCommand]) -> None:
    for step in next_commands:
        say(console, f"next: {step}")


def table(levels: Sequence[RankedSetting], *, of_one: bool = False, narrow: bool = False) -> Table:
    """Return the ranking: mean, half-width of its interval, runs finished of those planned, difference to the best."""
    title = "test −ELBO, nats per image (lower is better)"
    found = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0 if narrow else 1))
    found.add_column("setting", overflow="fold")
    titles = ["mean", "± 95 %", "seeds"] + ["vs best", "± 95 %", ""] * (not of_one)
    for title in titles:
        found.add_column(title, justify="right", no_wrap=True)
    for index, level in enumerate(levels):
        difference = _difference(level.difference, "best" if index == 0 else "–")
        cells = [*_mean(level.value), f"{level.value.n if level.value else 0}/{level.n_planned}"]
        found.add_row(_setting(level), *cells, *([] if of_one else difference))
    return found


def _setting(level: RankedSetting) -> Text:
    parts = {"failed": level.n_failed, "diverged": level.n_diverged}
    bad = ", ".join(f"{n} {status}" for status, n in parts.items() if n)
    return Text(visible(level.setting, NAME) + (f"\n  {bad}" if bad else ""))


def _mean(value: Mean | None) -> tuple[str, str]:
    return ("–", "–") if value is None else (f"{value.mean:.2f}", _half(value))


def _half(value: Mean) -> str:
    return "–" if value.half is None else f"{value.half:.2f}"


def _difference(value: Mean | None, without: str) -> tuple[str, str, str]:
    if value is None:
        return without, "", ""
    return f"{value.mean:+.2f}", _half(value), "?" * (value.half is not None and not value.excludes_zero)


def show_under_way(console: Console, running: Sequence[RunProgress], left_s: float | None) -> None:
    """Print the runs under way, and how much time the sweep still needs; nothing where none is."""
    if not running:
        return
    found = Table(box=None, pad_edge=False)
    found.add_column("under way", overflow="fold")
    for title in ("epoch", "started", "last epoch", "left"):
        found.add_column(title, justify="right", no_wrap=True)
    for one in running[:SHOWN]:
        ages = [f"{duration(one.since_start_s)} ago", "–"]
        if one.since_epoch_s is not None:
            ages[1] = f"{duration(one.since_epoch_s)} ago"
        left = "…" if one.left_s is None else duration(one.left_s)
        found.add_row(Text(visible(one.run.name, NAME)), f"{one.epoch}/{one.run.n_epochs}", *ages, left)
    console.print(found)
    if len(running) > SHOWN:
        say(console, f"… and {len(running) - SHOWN} more under way.")
    if left_s is not None:
        say(console, f"The whole sweep needs about {duration(left_s)} more, at {len(running)} runs at once.")


def not_finished(sweep: "Sweep") -> list[str]:
    """Return one line per reason for which runs failed, diverged or were skipped, with the runs it befell."""
    befell: dict[tuple[str, str], list[str]] = defaultdict(list)
    errors: dict[tuple[str, str], str] = {}
    for run in sweep.grid.runs:
        if (status := sweep.status(run)) in ("failed", "diverged", "skipped", "interrupted"):
            error = getattr(sweep.ends[run.key], "error", "")
            befell[status, cause(error)].append(run.name)
            errors.setdefault((status, cause(error)), error)
    more = {why: f" and {len(names) - 1} more" if len(names) > 1 else "" for why, names in befell.items()}
    return [f"{why[0]}: {errors[why]} ({names[0]}{more[why]})" for why, names in befell.items()]


def cause(error: str) -> str:
    """Return an error without the step at which it came: runs that fail alike have one cause."""
    return _STEP.sub("", error)


def tracebacks(sweep: "Sweep") -> list[str]:
    """Return the traceback of the first run of each error, with the run's name."""
    first: dict[str, str] = {}
    for run in sweep.grid.runs:
        end = sweep.ends.get(run.key)
        if isinstance(end, Failed) and end.traceback:
            first.setdefault(cause(end.error), f"{visible(run.name)}\n{visible_lines(end.traceback).rstrip()}")
    return list(first.values())
