"""How far each estimator's gradient is from the true one, and how that relates to the result."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from reports.comparison import Metric
from reports.contract.stored_run import FINISHED
from reports.page.axes import annotate, finish, one_panel
from reports.page.blocks import Block, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context
from reports.page.svg import Panel, inline, short
from reports.sections import gradient_history

HOW = (
    "At the parameters that a run had after an epoch, on a frozen batch of training {images}, many draws of an "
    "estimator of the {cost}’s gradient are held against the true one. Relative bias 1: the error of the "
    "mean is as long as the gradient. The Monte Carlo noise floor is subtracted; where the 95 % interval begins at "
    "0, no bias was found with so many draws, whatever the number says, and a curve shows 0. A dash where an interval "
    "belongs: draws that differ were too rare. Variance and SNR are of one draw: below an SNR of 1 the noise is "
    "larger than the gradient. Evals is what a draw costs, in {evaluations} per {image}; Error compares at equal "
    "cost: it is the root mean square distance to the true gradient, relative to it, after as many draws as 100 "
    "evaluations pay for. Over several seeds numbers are means, an interval reaches from the lowest end of all seeds "
    "to the highest, so that one that begins at 0 says that at some seed no bias was found, and p, the smallest times "
    "the number of seeds, whether there is one at any. Milliseconds compare only where nothing else ran."
)
MEASURES = (
    ("relative_bias", "relative bias"), ("variance", "variance of a draw"), ("snr", "signal-to-noise of a draw")
)  # fmt: skip
HOW_FINAL = (
    "Each mark is one setting: its own estimator’s bias, variance and signal-to-noise at the last measured epoch, mean "
    "over seeds, against {final}. A pattern here says which of them mattered at these learning rates; it is a "
    "correlation over settings, and no proof."
)


def section(context: Context) -> Section:
    """Show figures and tables of all measured estimators, curves of each run's own, and both against the result."""
    measured = gradient_history.sections(context.runs)
    if not measured:
        text = "Not measured: a `diagnostics` section in the grid asks for it (docs/diagnostics.md)."
        return Section("gradients", "Gradient quality", [Words(text, "empty", code=True)])
    blocks: list[Block] = [
        Words(gradient_history.truth(context.history)),
        Heading("Every estimator at the end of training", "on the logits"),
    ]
    for number, (words, panel) in enumerate(gradient_history.last_panels(measured)):
        blocks += [Words(words, "lead"), Pictures(f"gradients-{number + 1}", [panel])]
    for each, table in zip(measured, gradient_history.tables(measured, context.wording), strict=True):
        frame = each.frame.assign(parameters_of=each.title).drop(columns="reason")
        blocks.append(Tabular(table, "gradients", frame[["parameters_of", "estimator", *_rest(frame)]]))
    curves = gradient_history.curves(context.history, context.styles)
    for number, (title, panels) in enumerate(curves):
        blocks.append(Heading(title, "each run’s own estimator"))
        blocks.append(Pictures(f"gradient-curves-{number + 1}", panels, legend=number == 0))
    blocks.append(How(HOW.format(**context.wording.texts)))
    if panels := against_result(context):
        blocks += [Heading("Bias and noise against the result"), Pictures("gradients-and-result", panels)]
        blocks.append(How(HOW_FINAL.format(final=f"the final {_result(context)}")))
    return Section("gradients", "Gradient quality", blocks)


def _result(context: Context) -> str:
    """Return what a setting ends with, in words."""
    is_loss = context.wording.is_vae or context.primary is None
    return "loss" if is_loss else str(context.primary and context.primary.title).lower()


def _rest(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if name not in ("parameters_of", "estimator")]


def against_result(context: Context) -> list[Panel]:
    """Plot the final metric against the last relative bias and signal-to-noise of each setting's own estimator."""
    metric = context.primary
    if metric is None:
        return []
    final = context.frame[context.frame["status"] == FINISHED].set_index("run_key")[metric.name]
    panels = []
    for layer, (name, what) in itertools.product(gradient_history.layers(context.history), MEASURES):
        column, words = gradient_history.own_column(layer, name), what + gradient_history.of_layer(layer)
        if column not in context.history:
            continue
        last = context.history.dropna(subset=[column]).sort_values("epoch").groupby("run_key").tail(1)
        last = last.assign(final=last["run_key"].map(final)).dropna(subset=["final"])
        points = last.groupby(["estimator_label", "setting", "device"], sort=True)[[column, "final"]].mean()
        if len(points) > 1:
            panels.append(_scatter(context, points, column, words, metric))
    return panels


def _scatter(context: Context, points: pd.DataFrame, column: str, words: str, metric: Metric) -> Panel:
    with one_panel(f"result-{column}") as (figure, axes):
        for label, row in zip(points.index.get_level_values("estimator_label"), points.to_dict("records"), strict=True):
            how = context.styles[str(label)]
            axes.plot(row[column], row["final"], how.marker, color=how.hex, markersize=7)
        finish(axes, f"Final {_result(context)} against {words}", words, metric.axis)
        if not column.endswith("bias") and np.all(points[column] > 0):
            axes.set_xscale("log")
        axes.margins(0.08)
        for first in points.reset_index().drop_duplicates("estimator_label").to_dict("records"):
            annotate(axes, short(str(first["estimator_label"]), 28), first[column], first["final"])
        shown = zip(points.index.get_level_values("setting"), points.to_dict("records"), strict=True)
        spoken = "; ".join(
            f"{setting}: {row[column]:.2g} and {row['final']:.{metric.digits - 1}f}" for setting, row in shown
        )
        return inline(figure, f"{words} and {metric.name} of each setting. {spoken}.")
