"""Who learns more from an update, and who learns faster."""

from __future__ import annotations

from reports.contract.stored_run import FINISHED
from reports.page import curves
from reports.page.blocks import Block, Heading, How, Pictures, Section, Words
from reports.page.context import Context

MAX_PANELS = 40
"""With more, one panel has a median for each estimator instead."""
HOW = (
    "{metric}: a thin line per seed, a thick one for the median over seeds (with many seeds a "
    "band between the quartiles instead of the thin lines; where a panel holds many runs of several schedules, their "
    "medians alone, which differ by their dash). × marks where a run failed or diverged; it counts as worst from "
    "there on. All panels share one vertical axis, which may cut off the first tenth of training. Time is training "
    "only, without evaluation"
)

HOW_TAU = "τ at the end of each epoch, the same for every estimator and seed of a schedule; of a learned τ the median."


def section(context: Context) -> Section:
    """Show loss against steps and against seconds, and the temperatures."""
    curve, history = context.curve, context.history
    if curve is None:
        text = "No run has ended yet: curves are of runs that have."
        if (context.frame["status"] == FINISHED).any():
            text = "The runs have values at their end alone, so there are no curves."
        return Section("curves", "Learning curves", [Words(text, "empty")])
    many = curves.n_panels(history, curve.name) > MAX_PANELS
    draw = curves.summary if many else curves.curves
    timed = bool(history["elapsed_s"].notna().any())
    by_step, by_time = (
        draw(history, curve.name, x, context.styles, curve.axis, curve.better, curve.digits - 1) if there else []
        for x, there in (("step", True), ("elapsed_s", timed))
    )
    by_seconds: list[Block] = [Heading("By training time"), Pictures("curves-by-time", by_time)] if timed else []
    how = HOW.format(metric=" in ".join(filter(None, [curve.name, curve.per])))
    how += "; these seconds were measured while other runs shared the machine." if timed and context.is_shared else "."
    how += "" if timed else " The runs have no times."
    if len(history) and history["epoch"].nunique() == 1:
        how += " There is one epoch, so each run is one point."
    blocks: list[Block] = [
        Heading("By training step"),
        Pictures("curves-by-step", by_step, legend=True),
        *by_seconds,
        How(how),
    ]
    if temperatures := curves.temperatures(history):
        blocks += [Heading("Temperature"), Pictures("temperature", temperatures)]
        blocks.append(How(HOW_TAU))
    return Section("curves", "Learning curves", blocks)
