"""How it was done: definitions, tests, exclusions, settings, provenance."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports import comparison
from reports.contract.stored_run import DIVERGED, FAILED, FINISHED, VAL_LOSS
from reports.page import stored_provenance
from reports.page.blocks import Block, Definitions, Facts, Heading, Section, Source, Words
from reports.page.context import Context
from reports.page.definitions import terms
from reports.store.frame import Runs


def section(context: Context) -> Section:
    """Show every term, what was excluded, and where the numbers come from."""
    curve = context.curve.name if context.curve else VAL_LOSS
    shown = terms(context, comparison.bound_samples(context.frame), curve)
    blocks: list[Block] = [
        Definitions(shown),
        Heading("Exclusions"),
        Words(exclusions(context.frame, context.runs.notes)),
        *provenance(context.runs, context.frame),
    ]
    return Section("methods", "Methods", blocks)


def provenance(runs: Runs, frame: pd.DataFrame) -> list[Block]:
    """Return where the numbers come from, the settings of the runs in ``frame``, and the grids."""
    stored = runs.sweeps[-1].provenance if runs.sweeps else {}
    facts = list(stored_provenance.facts(stored)) or [("Machine", "The runs have no stored provenance.")]
    facts.append(("Sweeps", str(len(runs.sweeps))))
    blocks: list[Block] = [Heading("Provenance"), Facts(facts, command=stored_provenance.command(runs))]
    if settings := stored_provenance.settings(frame):
        blocks.append(Facts(settings, summary="Settings of the runs", code=True))
    several = len(runs.sweeps) > 1
    for sweep in runs.sweeps:
        if sweep.grid:
            blocks.append(Source("Grid" + (f" of sweep {sweep.run_id[:8]}" if several else ""), sweep.grid))
    return blocks


def exclusions(frame: pd.DataFrame, notes: Sequence[str] = (), where: str = "under “Did not finish”") -> str:
    """Return which runs are in no mean and no pair, in words, and ``where`` they are listed."""
    newest = " Where a configuration was run more than once, the newest finished run counts."
    newest += "".join(f" {note}" for note in notes if "left out" in note)
    without = frame[~frame["status"].isin((FINISHED, FAILED, DIVERGED))]
    if without.empty:
        return f"No run was excluded.{newest}"
    found = without["status"].value_counts().sort_index()
    listed = ", ".join(f"{count} {status}" for status, count in found.items())
    why = "In no mean and no pair, because they were not tried to the end"
    return f"{why}: {listed}; listed {where}.{newest}"
