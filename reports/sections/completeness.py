"""2. What was planned and what became of it; every run, with a link to it."""

from __future__ import annotations

import pandas as pd

from reports.contract.stored_run import TEST_NEG_BOUND, TEST_NEG_ELBO
from reports.page import tables
from reports.page.blocks import How, Section, Tabular
from reports.page.context import Context
from reports.page.tables import Cell, Column, Table

HOW = (
    "One cell per estimator, schedule and device: how many seeds ended how. Everything that was planned is counted; a "
    "run that left no trace is missing. An estimator without a temperature has no schedule: it is run once per seed "
    "and compared with every schedule."
)


def section(context: Context) -> Section:
    """Show the matrix of estimators × schedules × devices, and all runs in a folded table."""
    matrix = tables.completeness(context.frame)
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
        *([Column(metric.title, term=_term(metric.name))] if metric else []),
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
            cells.append(Cell(tables.number(value) if known else "–", float(value) if known else None))
        name = str(run["run_id"])[:8] or str(run["run_key"])[:8]
        rows.append([*cells, Cell(name, name, link=context.link({str(key): value for key, value in run.items()}))])
    return Table("Every run that was planned or stored", columns, rows)


def _term(name: str) -> str:
    return {TEST_NEG_ELBO: "neg-elbo", TEST_NEG_BOUND: "neg-bound"}.get(name, "")


def _frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Return all columns of a run that can be put into a file."""
    return runs.drop(columns=["start", "end"])
