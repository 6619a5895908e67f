"""The results of a sweep for a terminal: the ranking, the counts, the failures and the next commands.

Everything fits a console of 60 columns or more. Labels are folded, numbers are not.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.events import Failed
from harness.measures import Measure
from harness.status.next_commands import NextCommand
from harness.status.ranking import RankedSetting, decimals, rank, remarks
from harness.status.t_interval import Mean
from harness.status.time_left import RunProgress
from harness.units import duration
from reports.contract.text import NAME_LENGTH, visible, visible_lines

if TYPE_CHECKING:
    from harness.storage.sweep_state import Sweep

SHOWN = 20
"""The largest number of rows of a table, and of groups of failures, that are shown."""

_STEP = re.compile(r" \(step \d+, epoch \d+\)| at step \d+ \(epoch \d+\)| after epoch \d+$")

NARROW = 72
"""In a console with fewer columns, the numbers stand closer together to leave room for the labels."""


def say(console: Console, line: str) -> None:
    """Print a line without folding it, so that it can be copied and searched."""
    console.print(visible(line), highlight=False, markup=False, soft_wrap=True)


def say_folded(console: Console, line: str) -> None:
    """Print a sentence, folded to the width of the console."""
    console.print(visible(line), highlight=False, markup=False)


def show_results(console: Console, sweep: "Sweep") -> None:
    """Print the ranking if a run has finished, the counts, and the runs that failed or were interrupted."""
    by_task: dict[str, list[RankedSetting]] = {}
    for one in rank(sweep):
        by_task.setdefault(one.task, []).append(one)
    for task, ranked in by_task.items():
        show_ranking(console, ranked, task if len(by_task) > 1 else "")
    say(console, ", ".join(f"{n} {status}" for status, n in sweep.counts().most_common()) + ".")
    reasons = unfinished(sweep)
    for line in reasons[:SHOWN]:
        say(console, line)
    if len(reasons) > SHOWN:
        say(console, f"… and {len(reasons) - SHOWN} more: --json and the report list all.")


def show_ranking(console: Console, ranked: Sequence[RankedSetting], task: str) -> None:
    """Print the ranking of the settings of one task, if a run has finished. `task` is named if it is not empty."""
    if all(one.value is None for one in ranked):
        return
    shown = [one for one in ranked if one.is_tried][:SHOWN]
    console.print(Text(heading(shown[0].measure, task), style="table.title"))
    console.print(table(shown, of_one=len(ranked) == 1, narrow=console.width < NARROW, task=task))
    for line in remarks(shown, ranked):
        say_folded(console, line)


def show_next(console: Console, next_commands: Sequence[NextCommand]) -> None:
    """Print the commands that the user may want to run next."""
    for command in next_commands:
        say(console, f"next: {command}")


def heading(measure: Measure, task: str) -> str:
    """Return the line above a ranking: task, measure, unit and direction. A table would fold it to its own width."""
    title = f"{f'{task}: ' if task else ''}{', '.join(filter(None, [f'test {measure.shown}', measure.unit]))}"
    return visible(f"{title} ({measure.better} is better)")


def table(ranked: Sequence[RankedSetting], *, of_one: bool = False, narrow: bool = False, task: str = "") -> Table:
    """Return the ranking: mean, half-width of its interval, finished of planned runs, difference to the best."""
    digits = decimals(ranked)
    found = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0 if narrow else 1))
    found.add_column("setting", overflow="fold")
    titles = ["mean", "± 95 %", "seeds"] + ["vs best", "± 95 %", ""] * (not of_one)
    for title in titles:
        found.add_column(title, justify="right", no_wrap=True)
    for index, one in enumerate(ranked):
        difference = _difference(one.difference, digits, "best" if index == 0 else "–")
        cells = [*_mean(one.value, digits), f"{one.value.n if one.value else 0}/{one.n_planned}"]
        found.add_row(_setting(one, task), *cells, *([] if of_one else difference))
    return found


def _setting(one: RankedSetting, task: str) -> Text:
    """Return the setting, without the task if the title names it, and how many of its runs failed or diverged."""
    shown = one.setting.replace(f" · task={task}", "") if task else one.setting
    parts = {"failed": one.n_failed, "diverged": one.n_diverged}
    bad = ", ".join(f"{n} {status}" for status, n in parts.items() if n)
    return Text(visible(shown, NAME_LENGTH) + (f"\n  {bad}" if bad else ""))


def _mean(value: Mean | None, digits: int) -> tuple[str, str]:
    return ("–", "–") if value is None else (f"{value.mean:.{digits}f}", _half(value, digits))


def _half(value: Mean, digits: int) -> str:
    return "–" if value.half is None else f"{value.half:.{digits}f}"


def _difference(value: Mean | None, digits: int, placeholder: str) -> tuple[str, str, str]:
    if value is None:
        return placeholder, "", ""
    return f"{value.mean:+.{digits}f}", _half(value, digits), "?" * (value.half is not None and not value.excludes_zero)


def show_running(console: Console, running: Sequence[RunProgress], left_s: float | None) -> None:
    """Print the runs in progress and the time that the sweep still needs, or nothing if no run is in progress."""
    if not running:
        return
    found = Table(box=None, pad_edge=False)
    found.add_column("in progress", overflow="fold")
    for title in ("epoch", "started", "last epoch", "left"):
        found.add_column(title, justify="right", no_wrap=True)
    for one in running[:SHOWN]:
        ages = [f"{duration(one.since_start_s)} ago", "–"]
        if one.since_epoch_s is not None:
            ages[1] = f"{duration(one.since_epoch_s)} ago"
        left = "…" if one.left_s is None else duration(one.left_s)
        found.add_row(Text(visible(one.run.name, NAME_LENGTH)), f"{one.epoch}/{one.run.n_epochs}", *ages, left)
    console.print(found)
    if len(running) > SHOWN:
        say(console, f"… and {len(running) - SHOWN} more in progress.")
    if left_s is not None:
        say(console, f"The whole sweep needs about {duration(left_s)} more with {len(running)} runs at a time.")


def unfinished(sweep: "Sweep") -> list[str]:
    """Return one line per reason why runs failed, diverged, were skipped or were interrupted, with a run's name."""
    names_by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
    errors: dict[tuple[str, str], str] = {}
    for run in sweep.grid.runs:
        if (status := sweep.status(run)) in ("failed", "diverged", "skipped", "interrupted"):
            error = getattr(sweep.ends[run.key], "error", "")
            names_by_reason[status, cause(error)].append(run.name)
            errors.setdefault((status, cause(error)), error)
    more = {key: f" and {len(names) - 1} more" if len(names) > 1 else "" for key, names in names_by_reason.items()}
    return [f"{key[0]}: {errors[key]} ({names[0]}{more[key]})" for key, names in names_by_reason.items()]


def cause(error: str) -> str:
    """Return an error without its step and epoch, so that runs that fail alike have the same cause."""
    return _STEP.sub("", error)


def tracebacks(sweep: "Sweep") -> list[str]:
    """Return the traceback of the first run of each error, with the run's name."""
    first: dict[str, str] = {}
    for run in sweep.grid.runs:
        end = sweep.ends.get(run.key)
        if isinstance(end, Failed) and end.traceback:
            first.setdefault(cause(end.error), f"{visible(run.name)}\n{visible_lines(end.traceback).rstrip()}")
    return list(first.values())
