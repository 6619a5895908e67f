"""What was planned and what became of it; every run, with a link to it."""

from __future__ import annotations

import pandas as pd

from reports.contract.settings import distinct, joined, quote
from reports.contract.stored_run import (
    DIVERGED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    SKIPPED,
    TEST_NEG_BOUND,
    TEST_NEG_ELBO,
)
from reports.page import numbers
from reports.page.blocks import How, Section, Tabular
from reports.page.context import Context
from reports.page.table import Cell, Column, Table
from reports.store.frame import STATUSES

HOW = (
    "One cell per estimator, schedule and device: how many seeds ended how. Everything that was planned is counted; a "
    "run that left no trace is missing. An estimator without a temperature has no schedule: it is run once per seed "
    "and compared with every schedule."
)

Head = tuple[str | None, str, str]
"""Schedule, None for no temperature, device and the axes that estimators share."""


def section(context: Context) -> Section:
    """Show the matrix of estimators × schedules × devices, and all runs in a folded table."""
    matrix = outcomes(context.frame)
    return Section(
        "completeness",
        "Completeness",
        [
            Tabular(matrix, "completeness", matrix.frame(), style="matrix"),
            How(HOW),
            Tabular(every_run(context), "runs", _frame(context.frame), summary=f"All {len(context.frame)} runs"),
        ],
    )


def every_run(context: Context) -> Table:
    """Return a row per run, with its status and first numbers, and a link to it in MLflow if there is an address."""
    metric = context.primary
    columns = [
        Column("Setting", numeric=False, term="setting"),
        Column("Device", numeric=False),
        Column("Seed"),
        Column("Status", numeric=False, term="failures"),
        *([Column(metric.title, term=_term(metric.name, context))] if metric else []),
        Column("Run", numeric=False),
    ]
    rows = []
    for run in context.frame.to_dict("records"):
        seed = run["seed"]
        cells = [
            Cell(str(run["setting"]), str(run["setting"]), estimator=str(run["estimator"])),
            Cell(str(run["device"]), str(run["device"])),
            Cell("–") if pd.isna(seed) else Cell(str(seed), int(seed)),
            Cell(str(run["status"]), str(run["status"]), tone=str(run["status"])),
        ]
        if metric:
            value = run[metric.name]
            known = not pd.isna(value)
            cells.append(Cell(numbers.fixed(value, metric.digits) if known else "–", float(value) if known else None))
        name = str(run["run_id"])[:8] or str(run["run_key"])[:8]
        rows.append([*cells, Cell(name, name, link=context.link({str(key): value for key, value in run.items()}))])
    return Table("Every run that was planned or stored", columns, rows)


def outcomes(runs: pd.DataFrame) -> Table:
    """Return estimators × (schedule, device, shared axes): which runs of each cell ended how, in words and colours."""
    columns_of = ["schedule_label", "device", "shared_axes"]
    there = runs[columns_of].drop_duplicates().itertuples(index=False, name=None)
    heads = sorted(((None if pd.isna(head[0]) else head[0], *head[1:]) for head in there), key=_none_last)
    titles = distinct(heads, _head, lambda head: _head((head[0] and quote(head[0]), *head[1:])))
    rows = []
    for (estimator, label), group in runs.groupby(["estimator", "estimator_label"], sort=True):
        cells = [Cell(str(label), str(label), estimator=str(estimator))]
        for head in heads:
            same = group["schedule_label"].isna() if head[0] is None else group["schedule_label"] == head[0]
            mask = same & (group["device"] == head[1]) & (group["shared_axes"] == head[2])
            cells.append(_outcome_cell(group.loc[mask, "status"]))
        rows.append(cells)
    columns = [Column("Estimator", numeric=False), *(Column(titles[head], numeric=False) for head in heads)]
    return Table("How the planned runs ended", columns, rows)


def _none_last(head: Head) -> tuple[object, ...]:
    return head[0] is None, head[0] or "", *head[1:]


def _head(head: Head) -> str:
    return joined("no temperature" if head[0] is None else head[0], *head[1:])


def _outcome_cell(statuses: pd.Series) -> Cell:
    if statuses.empty:
        return Cell("not in the grid", None, tone="absent")
    counts = {status: int((statuses == status).sum()) for status in (*STATUSES, *sorted(set(statuses) - set(STATUSES)))}
    counts = {status: count for status, count in counts.items() if count}
    text = " · ".join(f"{count} {status}" for status, count in counts.items())
    worst = next((status for status in (FAILED, DIVERGED, "missing", INTERRUPTED, RUNNING, "waiting", SKIPPED)
                  if status in counts), FINISHED)  # fmt: skip
    return Cell(text, counts.get(FINISHED, 0), tone=worst)


def _term(name: str, context: Context) -> str:
    if not context.wording.is_vae:
        return "measure"
    return {TEST_NEG_ELBO: "neg-elbo", TEST_NEG_BOUND: "neg-bound"}.get(name, "")


_NAMED_BY_AXES = ("shared_axes", "own_axes")


def _frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a run for a file, without those that repeat others or are the same in every row."""
    return runs.drop(columns=["start", "end", "task", "task_label", "measures", *_NAMED_BY_AXES], errors="ignore")
