"""What is said of a sweep as a whole where its runs are listed: a note in Markdown, and the best run of each estimator.

All text of a grid or command line is shown as text: it makes no link, no heading and no HTML.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from harness.events import Finished
from harness.status.ranking import Level, rank
from reports.contract.stored_run import TEST_NEG_ELBO
from reports.contract.text import visible

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.storage.last_command import Origin
    from harness.storage.sweep_state import Sweep

METRIC = TEST_NEG_ELBO
NAMED = 12
"""So many estimators, schedules or devices are named; a grid may have hundreds."""
ROWS = 40
QUESTION, COMMAND, LABEL = 600, 1200, 80
"""Characters of each at most: MLflow cuts a tag at 8,000 in silence."""
_MARKUP = re.compile(r"[&<>\\`*_{}\[\]|~#$@]|(?<=:)//|(?<=www)\.", re.IGNORECASE)


class Outcome(NamedTuple):
    """What a store is told of a sweep: `best` has the key of the best finished run by estimator."""

    note: str = ""
    best: Mapping[str, str] = MappingProxyType({})


def outcome(sweep: "Sweep", made_with: "Origin | None", *, is_over: bool) -> Outcome:
    """Return what there is to say, while the sweep runs or now that it is over."""
    return Outcome(note(sweep, made_with, is_over=is_over), best_runs(sweep))


def best_runs(sweep: "Sweep") -> dict[str, str]:
    """Return the key of the finished run with the lowest test −ELBO of each estimator, by its name."""
    found: dict[str, tuple[float, str]] = {}
    for run in sweep.grid.runs:
        value = result(sweep, run)
        name = run.estimator.name
        if value is not None and (name not in found or value < found[name][0]):
            found[name] = value, run.key
    return {name: key for name, (_, key) in found.items()}


def result(sweep: "Sweep", run: "RunConfig") -> float | None:
    """Return the test −ELBO of a run, or None where it has none."""
    end = sweep.ends.get(run.key)
    return end.metrics.get(METRIC) if isinstance(end, Finished) else None


def note(sweep: "Sweep", made_with: "Origin | None", *, is_over: bool) -> str:
    """Return the description of a sweep in Markdown."""
    parts = [f"**{text(sweep.grid.question, QUESTION)}**"] if sweep.grid.question else []
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


def state(sweep: "Sweep", ranked: Sequence[Level], *, is_over: bool) -> str:
    """Return how the sweep ended, or that it is under way, with its runs by status and the best setting.

    MLflow folds all but the first lines of a description away, so this stands there.
    """
    counts = ", ".join(f"{count} {status}" for status, count in sweep.counts().most_common())
    best = ""
    if ranked:
        best = (
            f" Best so far: {code(ranked[0].setting)}, test −ELBO {mean(ranked[0]):.2f} (mean of {seeds(ranked[0])})."
        )
    if not is_over:
        return f"**Under way.** When it began: {counts}.{best}"
    return f"**Ended:** {counts}.{best.replace('Best so far', 'Best')}"


def best_settings(sweep: "Sweep") -> list[Level]:
    """Return the best setting of each estimator, best first, in the order of the terminal and the report.

    One with a failed or diverged run comes after all without; an estimator without a finished run has none.
    """
    names = {run.label: run.estimator.name for run in sweep.grid.runs}
    best: dict[str, Level] = {}
    for level in rank(sweep):
        if level.value is not None:
            best.setdefault(names[level.setting], level)
    return list(best.values())


def mean(level: Level) -> float:
    """Return the mean of a setting's finished runs."""
    return level.value.mean if level.value is not None else math.nan


def seeds(level: Level) -> str:
    """Return over how many seeds that mean is, of how many if not of all, and what became of the others."""
    n = level.value.n if level.value is not None else 0
    if n == level.n_planned:
        return counted(n, "seed")
    bad = {"failed": level.n_failed, "diverged": level.n_diverged}
    return ", ".join([f"{n:,} of {counted(level.n_planned, 'seed')}", *(f"{k:,} {how}" for how, k in bad.items() if k)])


def ranking(rows: Sequence[Level]) -> str:
    """Return settings as a list in Markdown: the tables of MLflow's interface have no space between their columns."""
    lines = [f"- {mean(level):.2f} {code(level.setting)} ({seeds(level)})" for level in rows[:ROWS]]
    lines += [f"- and {counted(len(rows) - ROWS, 'more estimator')}"] * (len(rows) > ROWS)
    last = "; those with failed or diverged runs are last" * any(level.n_bad for level in rows)
    return "\n".join([f"The best setting of each estimator, by its mean test −ELBO{last}:", "", *lines])


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(values: Iterable[str]) -> str:
    """Return the first values as code, and how many more there are."""
    first, more = list(values), 0
    if len(first) > NAMED:
        first, more = first[:NAMED], len(first) - NAMED
    return ", ".join(map(code, first)) + (f" and {more:,} more" if more else "")


def text(words: str, limit: int) -> str:
    """Return somebody's words as one line of Markdown that shows them and does nothing else."""
    return _MARKUP.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), visible(" ".join(words.split()), limit))


def code(words: str) -> str:
    """Return a name as code; its backticks become other characters that look alike."""
    shown = visible(words if len(words) <= LABEL else f"{words[:LABEL]}…")
    return f"`{shown.replace('`', 'ˋ')}`"


def block(command: str) -> str:
    """Return a command as a block of code."""
    shown = visible(command, COMMAND)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}sh\n{shown}\n{fence}"
