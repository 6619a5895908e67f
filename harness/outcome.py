"""What is said of a sweep as a whole where its runs are listed: a note in Markdown, and the best run of each estimator.

All text of a grid or command line is shown as text: it makes no link, no heading and no HTML.
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from harness.events import Finished
from reports.visible import visible

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.origin import Origin
    from harness.sweep import Sweep

METRIC = "test/neg_elbo"
NAMED = 12
"""So many estimators, schedules or devices are named; a grid may have hundreds."""
ROWS = 40
QUESTION, COMMAND, LABEL = 600, 1200, 80
"""Characters of each at most: MLflow cuts a tag at 8,000 in silence."""
_MARKUP = re.compile(r"[&<>\\`*_{}\[\]|~#$@]|(?<=:)//|(?<=www)\.", re.IGNORECASE)


class Setting(NamedTuple):
    """A setting of an estimator: its mean test −ELBO over so many finished seeds."""

    mean: float
    estimator: str
    label: str
    n_seeds: int


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
        "schedule": [run.schedule.label for run in runs if run.schedule.label != "none"],
        "device": [run.device for run in runs],
        "seed": [str(run.seed) for run in runs],
    }
    distinct = {name: list(dict.fromkeys(values)) for name, values in axes.items()}
    sizes = " × ".join(counted(len(values), name) for name, values in distinct.items() if values)
    lines = [f"{sizes}: {counted(len(runs), 'run')}."]
    lines += [f"- {name}s: {listed(values)}" for name, values in distinct.items() if values]
    return "\n".join([lines[0], "", *lines[1:]])


def state(sweep: "Sweep", ranked: Sequence[Setting], *, is_over: bool) -> str:
    """Return how the sweep ended, or that it is under way, with its runs by status and the best setting.

    MLflow folds all but the first lines of a description away, so this stands there.
    """
    counts = ", ".join(f"{count} {status}" for status, count in sweep.counts().most_common())
    best = ""
    if ranked:
        mean, _, label, n_seeds = ranked[0]
        best = f" Best so far: {code(label)}, test −ELBO {mean:.2f} (mean of {counted(n_seeds, 'seed')})."
    if not is_over:
        return f"**Under way.** When it began: {counts}.{best}"
    return f"**Ended:** {counts}.{best.replace('Best so far', 'Best')}"


def best_settings(sweep: "Sweep") -> list[Setting]:
    """Return the best setting of each estimator by its mean over seeds, best first."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in sweep.grid.runs:
        if (value := result(sweep, run)) is not None:
            values[run.estimator.name, run.label].append(value)
    best: dict[str, tuple[float, str, int]] = {}
    for (name, label), found in values.items():
        row = statistics.fmean(found), label, len(found)
        best[name] = min(best.get(name, row), row)
    return sorted(Setting(mean, name, label, n) for name, (mean, label, n) in best.items())


def ranking(rows: Sequence[Setting]) -> str:
    """Return settings as a list in Markdown: the tables of MLflow's interface have no space between their columns."""
    lines = [f"- {mean:.2f} {code(label)} ({counted(n, 'seed')})" for mean, _, label, n in rows[:ROWS]]
    lines += [f"- and {counted(len(rows) - ROWS, 'more estimator')}"] * (len(rows) > ROWS)
    return "\n".join(["The best setting of each estimator, by its mean test −ELBO:", "", *lines])


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
