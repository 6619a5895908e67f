"""14. What did not finish, and why."""

from __future__ import annotations

from reports.contract.stored_run import TRACEBACK_FILE
from reports.page import tables
from reports.page.blocks import How, Section, Tabular, Words
from reports.page.context import Context

HOW = (
    f"The whole traceback of a failed run is {TRACEBACK_FILE} among its artifacts in MLflow. "
    "`harness run` with --retry failed tries failed and diverged runs again."
)


def section(context: Context) -> Section:
    """Show every run without a result, with the first line of its error."""
    table = tables.failures(context.frame, context.link)
    if table is None:
        return Section("failures", "Did not finish", [Words("Every planned run finished.", "empty")])
    return Section("failures", "Did not finish", [Tabular(table, "failures", table.frame()), How(HOW)])
