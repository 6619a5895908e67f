"""What did not finish, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from reports.contract.stored_run import FINISHED, TRACEBACK_FILE
from reports.page.blocks import How, Section, Tabular, Words
from reports.page.context import Context
from reports.page.quality_tables import setting_cells
from reports.page.table import Cell, Column, Table

HOW = (
    f"The whole traceback of a failed run is {TRACEBACK_FILE} among its artifacts in MLflow. "
    "`harness run` with --retry failed tries failed and diverged runs again."
)


def section(context: Context) -> Section:
    """Show every run without a result, with the first line of its error."""
    table = unfinished(context.frame, context.link)
    if table is None:
        return Section("failures", "Did not finish", [Words("Every planned run finished.", "empty")])
    return Section("failures", "Did not finish", [Tabular(table, "failures", table.frame()), How(HOW)])


def unfinished(runs: pd.DataFrame, link: Callable[[Mapping[Any, object]], str] = lambda run: "") -> Table | None:
    """Return every run that did not finish, with the first line of its error; None if all finished.

    ``link`` gives the address of a run, or nothing.
    """
    bad = runs[runs["status"] != FINISHED]
    if bad.empty:
        return None
    columns = [
        Column(title, numeric=title == "Seed")
        for title in ("Setting", "Device", "Seed", "Status", "First line of the error", "Run")
    ]
    rows = []
    for _, row in bad.iterrows():
        lines = str(row["error"]).splitlines()
        seed = Cell("–") if pd.isna(row["seed"]) else Cell(str(row["seed"]), int(row["seed"]))
        status = Cell(str(row["status"]), str(row["status"]), tone=str(row["status"]))
        error = Cell(
            lines[0][:500] if lines else "planned, no trace of it in the store" if row["status"] == "missing" else "–"
        )
        rows.append(
            [
                *setting_cells(row, True),
                seed,
                status,
                error,
                Cell(str(row["run_id"])[:8] or str(row["run_key"])[:8], link=link(row.to_dict())),
            ]
        )
    return Table("Runs that did not finish", columns, rows)
