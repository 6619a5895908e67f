"""What the tracking store gets about a sweep as a whole: a description in Markdown, and the best run per estimator.

Text of a grid or command line is escaped: it makes no link, no heading and no HTML.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from harness.status.ranking import RankedSetting, decimals, rank, result
from harness.units import counted
from reports.contract.text import visible

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.storage.last_command import LastCommand
    from harness.storage.sweep_state import Sweep

MAX_NAMES = 12
"""The largest number of estimators, schedules or devices that are named. A grid may have hundreds."""
MAX_ROWS = 40
MAX_QUESTION, MAX_COMMAND, MAX_LABEL = 600, 1200, 80
"""The largest number of characters of each. MLflow silently cuts a tag at 8,000."""
_MARKUP = re.compile(r"[&<>\\`*_{}\[\]|~#$@]|(?<=:)//|(?<=www)\.", re.IGNORECASE)


class StoreSummary(NamedTuple):
    """The description of a sweep, and the key of the best finished run by the name of its estimator."""

    description: str = ""
    best: Mapping[str, str] = MappingProxyType({})


def summarize(sweep: "Sweep", made_with: "LastCommand | None", *, is_over: bool) -> StoreSummary:
    """Return the summary of a sweep that is running or over."""
    return StoreSummary(description(sweep, made_with, is_over=is_over), best_runs(sweep))


def best_runs(sweep: "Sweep") -> dict[str, str]:
    """Return the key of the best finished run of each estimator, by its name, with the task's if there are several."""
    several = len({run.task_label for run in sweep.grid.runs}) > 1
    found: dict[str, tuple[float, str]] = {}
    for run in sweep.grid.runs:
        measure = run.measures[0]
        value = result(sweep.ends.get(run.key), measure)
        name = f"{run.task_label}: {run.estimator.name}" if several else run.estimator.name
        if value is None:
            continue
        badness = value if measure.better == "lower" else -value
        if name not in found or badness < found[name][0]:
            found[name] = badness, run.key
    return {name: key for name, (_, key) in found.items()}


def description(sweep: "Sweep", made_with: "LastCommand | None", *, is_over: bool) -> str:
    """Return the description of a sweep in Markdown."""
    parts = [f"**{text(sweep.grid.question, MAX_QUESTION)}**"] if sweep.grid.question else []
    ranked = best_settings(sweep)
    parts += [state(sweep, ranked, is_over=is_over), *([ranking(ranked)] if ranked else [])]
    parts.append(grid_in_words(sweep.grid.runs))
    for title, command in (("Run again", made_with and made_with.command), ("Report", made_with and made_with.report)):
        if command:
            parts.append(f"{title}:\n\n{block(command)}")
    return "\n\n".join(parts)


def grid_in_words(runs: Sequence["RunConfig"]) -> str:
    """Return the axes of a grid with their sizes, then with their names."""
    axes = {
        "estimator": [run.estimator.label for run in runs],
        "schedule": [run.setting.schedule for run in runs if run.setting.schedule is not None],
        "device": [run.device for run in runs],
        "seed": [str(run.seed) for run in runs],
    }
    distinct = {name: list(dict.fromkeys(values)) for name, values in axes.items()}
    sizes = " × ".join(counted(len(values), name) for name, values in distinct.items() if values)
    lines = [f"{sizes}: {counted(len(runs), 'run')}."]
    lines += [f"- {name}s: {listed(values)}" for name, values in distinct.items() if values]
    return "\n".join([lines[0], "", *lines[1:]])


def state(sweep: "Sweep", ranked: Sequence[RankedSetting], *, is_over: bool) -> str:
    """Return how the sweep ended, or that it is under way, with its runs by status and the best setting.

    It is short and comes first because MLflow shows only the first lines of a description.
    """
    counts = ", ".join(f"{count} {status}" for status, count in sweep.counts().most_common())
    best = ""
    if ranked and len({one.task for one in ranked}) == 1:
        first = ranked[0]
        value = f"{title(first)} {number(first)} (mean of {seeds(first)})"
        best = f" Best so far: {code(first.setting)}, {value}."
    if not is_over:
        return f"**Under way.** When it began: {counts}.{best}"
    return f"**Ended:** {counts}.{best.replace('Best so far', 'Best')}"


def best_settings(sweep: "Sweep") -> list[RankedSetting]:
    """Return the best setting of each estimator that has a finished run, in the order of the terminal and the report.

    Settings with failed or diverged runs come after all others.
    """
    names = {run.label: run.estimator.name for run in sweep.grid.runs}
    best: dict[tuple[str, str], RankedSetting] = {}
    for one in rank(sweep):
        if one.value is not None:
            best.setdefault((one.task, names[one.setting]), one)
    return list(best.values())


def title(one: RankedSetting) -> str:
    """Return the name of the measure, as text of Markdown."""
    return text(f"test {one.measure.shown}", MAX_LABEL)


def number(one: RankedSetting) -> str:
    """Return the mean of a setting's finished runs."""
    mean = one.value.mean if one.value is not None else math.nan
    return f"{mean:.{decimals([one])}f}"


def seeds(one: RankedSetting) -> str:
    """Return how many seeds the mean is over, and if not all, how many failed or diverged."""
    n = one.value.n if one.value is not None else 0
    if n == one.n_planned:
        return counted(n, "seed")
    bad = {"failed": one.n_failed, "diverged": one.n_diverged}
    return ", ".join([f"{n:,} of {counted(one.n_planned, 'seed')}", *(f"{k:,} {how}" for how, k in bad.items() if k)])


def ranking(rows: Sequence[RankedSetting]) -> str:
    """Return settings as a Markdown list, since MLflow shows tables without space between their columns."""
    tasks = dict.fromkeys(one.task for one in rows)
    lines = [f"- {number(one)} {code(one.setting)} ({seeds(one)})" for one in rows[:MAX_ROWS]]
    lines += [f"- and {counted(len(rows) - MAX_ROWS, 'more estimator')}"] * (len(rows) > MAX_ROWS)
    last = "; those with failed or diverged runs are last" * any(one.n_bad for one in rows)
    by = f"mean {title(rows[0])}" if len(tasks) == 1 else "mean first measure, one task after the other"
    return "\n".join([f"The best setting of each estimator, by its {by}{last}:", "", *lines])


def listed(values: Iterable[str]) -> str:
    """Return the first values as code, and the number of the others."""
    first, more = list(values), 0
    if len(first) > MAX_NAMES:
        first, more = first[:MAX_NAMES], len(first) - MAX_NAMES
    return ", ".join(map(code, first)) + (f" and {more:,} more" if more else "")


def text(words: str, limit: int) -> str:
    """Return foreign text as one line of Markdown, escaped."""
    return _MARKUP.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), visible(" ".join(words.split()), limit))


def code(words: str) -> str:
    """Return a name as Markdown code. Its backticks become a similar character."""
    shown = visible(words if len(words) <= MAX_LABEL else f"{words[:MAX_LABEL]}…")
    return f"`{shown.replace('`', 'ˋ')}`"


def block(command: str) -> str:
    """Return a command as a Markdown code block."""
    shown = visible(command, MAX_COMMAND)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}sh\n{shown}\n{fence}"
