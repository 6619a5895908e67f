"""The page of a sweep over several tasks: what each says, a table over all of them, and where to read on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from reports.comparison.over_tasks import Key, Ranks, TaskLevels, as_frame, every_setting, rank_over
from reports.contract.stored_run import FINISHED
from reports.page import interval_plots, numbers, stored_provenance
from reports.page.blocks import (
    Block,
    Counts,
    Definitions,
    Facts,
    Finding,
    Findings,
    Heading,
    How,
    Pictures,
    Section,
    Tabular,
    Words,
)
from reports.page.context import Context
from reports.page.definitions import TERMS
from reports.page.palette import Styles
from reports.page.table import Cell, Column, Table
from reports.sections import findings, methods, verdict
from reports.store.frame import Runs

Contexts = Mapping[str, Context]
"""By the label of the task."""
HOW = (
    "The mean over the finished runs of a setting, in the unit of each task (↓: lower is better, ↑: higher), and in "
    "brackets its rank among the settings that every task has. A setting with a failed or diverged run ranks after "
    "those without. Numbers of different tasks are never compared; ranks are. Mean rank: over the tasks, 1 is best. "
    "What lies behind a number is on the page of its task."
)
HOW_PICTURE = (
    "Every open mark is the rank of a setting on one task; the bar is its mean over the tasks. Left is better."
)
RANK_TERMS = (
    ("rank", "Rank", "Within a task, by the mean over seeds in the direction that is better there; settings with a "
        "failed or diverged run come last, the larger their share the later. Ties get mid-ranks."),
    ("mean-rank", "Mean rank", "Over the tasks, each of which counts once, however many seeds it has."),
    ("friedman", "Friedman’s test", "That all settings rank alike over the tasks (Friedman 1937), in its χ² form. "
        "Tasks are its blocks. Seeds are replicates within a block and add none."),
    ("nemenyi", "Critical difference", "Two mean ranks further apart than this differ at 5 %, corrected for all "
        "pairs (Nemenyi 1963). It is shown from six tasks on."),
)  # fmt: skip


def sections(runs: Runs, contexts: Contexts, links: Mapping[str, str], notes: Sequence[str]) -> list[Section]:
    """Return the sections of the page. ``links`` has the address of the page of each task."""
    levels = {
        label: TaskLevels(context.primary, context.levels(context.primary))
        for label, context in contexts.items()
        if context.primary is not None
    }
    ranks = rank_over(levels) if len(levels) > 1 else None
    return [
        _verdict(runs, contexts, links, ranks, notes),
        _tasks(contexts, links),
        _over(contexts, levels, ranks),
        _methods(runs),
    ]


def _verdict(
    runs: Runs, contexts: Contexts, links: Mapping[str, str], ranks: Ranks | None, notes: Sequence[str]
) -> Section:
    blocks: list[Block] = []
    if ranks is not None and len(ranks.keys) > 1:
        blocks.append(Words(best_over(ranks), "lead"))
    found = [_finding(label, context, links[label]) for label, context in contexts.items()]
    blocks.append(Findings(found))
    if ranks is not None and len(ranks.keys) > 1:
        blocks.append(Words(few_blocks(ranks, list(contexts)), "remark"))
    blocks += [Words(text, "warn") for text in (*notes, *runs.notes)]
    blocks.append(Counts(findings.counts(runs.runs)))
    if ranks is not None and (panel := interval_plots.rank_plot(*_plotted(ranks, contexts))):
        blocks += [Pictures("ranks", [panel]), How(HOW_PICTURE)]
    facts = [("Tasks", str(len(contexts))), *verdict.facts_of(runs)]
    return Section("verdict", "Verdict", [*blocks, Facts(facts, command=stored_provenance.command(runs))])


def _finding(label: str, context: Context, link: str) -> Finding:
    metric = context.primary
    if metric is None:
        return Finding(label, "", context.without_numbers, ", so there is nothing to compare.", link)
    levels, differences = context.levels(metric), context.differences(metric)
    subject, predicate = findings.sentence(context.compared, metric, levels, differences, context.baseline)
    return Finding(label, metric.name, subject, predicate, link)


def best_over(ranks: Ranks) -> str:
    """Return which setting has the best mean rank, in a sentence."""
    n_tasks, n_settings = ranks.table.shape
    tied = [key for key, mean in zip(ranks.keys, ranks.means, strict=True) if mean == ranks.means[0]]
    first = [_name(key, ranks.keys) for key in tied]
    have = "has" if len(first) == 1 else "have"
    return (
        f"{' and '.join(first)} {have} the best mean rank of {n_settings} settings over {n_tasks} tasks, "
        f"{numbers.fixed(float(ranks.means[0]))}."
    )


def few_blocks(ranks: Ranks, labels: Sequence[str]) -> str:
    """Return what so many tasks can and cannot say of the ranks."""
    n_tasks, n_settings = ranks.table.shape
    names = [label.partition("(")[0] for label in labels]
    again = sorted({name for name in names if names.count(name) > 1})
    text = (
        f"{n_tasks} tasks are {n_tasks} {'' if again else 'independent '}blocks, whatever the number of seeds. "
        f"Friedman’s test that all {n_settings} settings rank alike gives p = {numbers.p_value(ranks.p)}; the smallest "
        f"p that it can give here is {numbers.p_value(ranks.least_p)}."
    )
    if again:
        text += (
            f" Tasks of one name with other parameters ({', '.join(again)}) are hardly independent of each other, as "
            "this assumes: do not rely on it."
        )
    if ranks.distance is None:
        text += (
            " With fewer than six tasks its level has not been checked and there is no critical difference of "
            "mean ranks: read the ranks as a description of these tasks, not as evidence about others."
        )
    else:
        text += (
            f" Two mean ranks differ if they are {numbers.fixed(ranks.distance)} or more apart (Nemenyi’s critical "
            "difference, 5 %)."
        )
    return text


def _plotted(ranks: Ranks, contexts: Contexts) -> tuple[Ranks, dict[Key, str], Styles]:
    """Return what the figure of the ranks needs: also the estimator of each setting, and the styles."""
    frames = [context.compared[["setting", "device", "estimator_label"]] for context in contexts.values()]
    rows = pd.concat(frames).drop_duplicates().itertuples(index=False, name=None)
    styles = {label: style for context in contexts.values() for label, style in context.styles.items()}
    return ranks, {(setting, device): label for setting, device, label in rows}, styles


def _tasks(contexts: Contexts, links: Mapping[str, str]) -> Section:
    """Show each task with what it is compared by, and a link to its page."""
    columns = [
        Column("Task", numeric=False),
        Column("Compared by", numeric=False),
        Column("Unit", numeric=False),
        Column("Better", numeric=False),
        Column("Finished", meaning="of the planned runs"),
        Column("Best setting", numeric=False, term="rank"),
        Column("Mean"),
    ]
    rows = [[Cell(label, label, link=links[label]), *_task_cells(context)] for label, context in contexts.items()]
    table = Table("The tasks, each with a page of its own", columns, rows)
    return Section("tasks", "Tasks", [Tabular(table, "tasks", table.frame())])


def _task_cells(context: Context) -> list[Cell]:
    metric, counts = context.primary, dict(findings.counts(context.frame))
    finished, planned = counts[FINISHED], counts["planned"]
    runs = Cell(f"{finished} of {planned}", finished, tone="warn" if finished < planned else "")
    if metric is None:
        return [Cell("–"), Cell("–"), Cell("–"), runs, Cell("–"), Cell("–")]
    usable = context.levels(metric)
    best = usable.iloc[0]
    name = str(best["setting"])
    return [
        Cell(metric.title), Cell(metric.per or "–"), Cell(metric.better), runs,
        Cell(name, name, estimator=str(best["estimator"])), Cell(numbers.fixed(best["mean"], metric.digits)),
    ]  # fmt: skip


def _over(contexts: Contexts, tasks: Mapping[str, TaskLevels], ranks: Ranks | None) -> Section:
    """Show settings × tasks with ranks."""
    if ranks is None:
        text = "Fewer than two tasks have a finished run, so there is nothing to rank over tasks."
        return Section("ranks", "Over the tasks", [Words(text, "empty")])
    blocks: list[Block] = [Tabular(_table(contexts, tasks, ranks), "ranks", as_frame(tasks, ranks)), How(HOW)]
    if not ranks.keys:
        blocks.insert(0, Words("No setting was tried to the end on every task, so there are no ranks.", "warn"))
    elif others := [key for key in every_setting(tasks) if key not in ranks.keys]:
        shown = "; ".join(_name(key, others) for key in others[:20])
        more = f"; and {len(others) - 20} more" if len(others) > 20 else ""
        blocks.append(Words(f"Not ranked, because they were not tried on every task: {shown}{more}.", "remark"))
    return Section("ranks", "Over the tasks", blocks)


def _table(contexts: Contexts, tasks: Mapping[str, TaskLevels], ranks: Ranks) -> Table:
    keys = [*ranks.keys, *(key for key in every_setting(tasks) if key not in ranks.keys)]
    several = len({device for _, device in keys}) > 1
    estimators = {
        (row["setting"], row["device"]): str(row["estimator"])
        for context in contexts.values()
        for row in context.compared[["setting", "device", "estimator"]].to_dict("records")
    }
    columns = [Column("Setting", numeric=False, term="setting")]
    columns += [Column("Device", numeric=False)] if several else []
    columns.append(Column("Mean rank", term="mean-rank"))
    columns += [Column(f"{label} {'↓' if one.metric.sign > 0 else '↑'}", meaning=one.metric.axis, term="rank")
                for label, one in tasks.items()]  # fmt: skip
    rows = []
    for number, key in enumerate(keys):
        ranked = number < len(ranks.keys)
        mean = float(ranks.means[number]) if ranked else math.nan
        cells = [Cell(key[0], key[0], estimator=estimators[key]), *([Cell(key[1], key[1])] if several else [])]
        cells.append(Cell(numbers.fixed(mean), mean if ranked else None))
        for block, one in enumerate(tasks.values()):
            cells.append(_cell(one, key, float(ranks.table[block, number]) if ranked else math.nan))
        rows.append(cells)
    return Table("Mean of each setting on each task, and its rank there", columns, rows)


def _cell(task: TaskLevels, key: Key, rank: float) -> Cell:
    row = task.of(key)
    if row is None:
        return Cell("–", None, tone="absent")
    mean = float(row["mean"])
    text = numbers.fixed(mean, task.metric.digits)
    text += "" if math.isnan(rank) else f" ({rank:g})"
    text += f", {row['n_bad']} failed" if row["n_bad"] else ""
    tone = "warn" if row["n_bad"] else "good" if rank == 1 else ""
    return Cell(text, None if math.isnan(mean) else mean, tone=tone)


def _name(key: Key, keys: Sequence[Key]) -> str:
    return f"{key[0]} on {key[1]}" if len({device for _, device in keys}) > 1 else key[0]


def _methods(runs: Runs) -> Section:
    shown = [term for term in TERMS if term[0] == "setting"]
    blocks: list[Block] = [Definitions([*shown, *RANK_TERMS]), Heading("Exclusions")]
    excluded = methods.exclusions(runs.runs, runs.notes, "on the page of their task")
    blocks += [Words(excluded), *methods.provenance(runs, pd.DataFrame())]
    return Section("methods", "Methods", blocks)
