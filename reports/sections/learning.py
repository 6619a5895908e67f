"""4. Who learns more from an update, and who learns faster."""

from __future__ import annotations

from reports import figures
from reports.blocks import Block, Heading, How, Pictures, Section, Words
from reports.context import Context

HOW = (
    "{metric} in nats per example: a thin line per seed, a thick one for the median over seeds (with many seeds a "
    "band between the quartiles instead of the thin lines; where a panel holds many runs of several schedules, their "
    "medians alone, which differ by their dash). × marks where a run failed or diverged; it counts as worst from "
    "there on. All panels share one vertical axis, which may cut off the first tenth of training. Time is training "
    "only, without evaluation"
)


def section(context: Context) -> Section:
    """Loss against steps and against seconds, and the temperatures."""
    metric, history = context.curve_metric, context.history
    if metric is None:
        return Section("curves", "Learning curves", [Words("No run has told of an epoch yet.", "empty")])
    by_step = figures.curves(history, metric, "step", context.look)
    by_time = figures.curves(history, metric, "elapsed_s", context.look)
    how = HOW.format(metric=metric)
    how += "; these seconds were measured while other runs shared the machine." if context.is_shared else "."
    if len(history) and history["epoch"].nunique() == 1:
        how += " There is one epoch, so each run is one point."
    blocks: list[Block] = [
        Heading("By training step"),
        Pictures("curves-by-step", by_step, legend=True),
        Heading("By training time"),
        Pictures("curves-by-time", by_time),
        How(how),
    ]
    if temperatures := figures.temperatures(history):
        blocks += [Heading("Temperature"), Pictures("temperature", temperatures)]
        blocks.append(How("τ at the end of each epoch, the same for every estimator and seed of a schedule."))
    return Section("curves", "Learning curves", blocks)
