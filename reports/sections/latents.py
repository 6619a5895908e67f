"""What the codes are used for, and what rounding them costs during training."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.contract.stored_run import (
    DEAD_CLASSES,
    ENTROPY,
    FINISHED,
    LATENT_PREFIX,
    PERPLEXITY,
    TEST_GAP,
    TEST_KL,
    VAL_GAP,
)
from reports.page import curves, numbers, palette
from reports.page.axes import finish, one_panel
from reports.page.blocks import Block, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context
from reports.page.svg import Panel, inline
from reports.page.table import Cell, Column, Table
from reports.store.tasks import is_vae

COLUMNS = {
    PERPLEXITY: ("Perplexity", "perplexity", 2),
    DEAD_CLASSES: ("Dead classes", "dead-classes", 1),
    ENTROPY: ("Entropy of q", "entropy", 2),
    TEST_KL: ("KL", "kl", 2),
    TEST_GAP: ("Soft/hard gap", "gap", 2),
}
CURVES = {
    PERPLEXITY: ("Code perplexity over training", "code perplexity"),
    VAL_GAP: ("Soft/hard gap over training", f"{VAL_GAP}, nats per example"),
}
HOW = (
    "Means over the finished runs of a setting, on test {images}. Perplexity says how many of its classes a variable "
    "uses (at most K); dead classes are those that next to no {image} uses; a low entropy{of_q} is a decided code."
)
HOW_GAP = " A large gap means that the relaxed codes of training carry what one-hot codes cannot."
HOW_KL = (
    "KL divergence of each latent variable, from the one that says most to the one that says least, of one run of "
    "each estimator: the first finished seed of its first setting, of at most 12 estimators. A line that falls to "
    "zero early leaves variables unused."
)
MAX_LINES = 12
MAX_PANELS = 8
"""With more, one panel has a median for each estimator instead."""


def section(context: Context) -> Section:
    """Show a table of latent use, curves over training, and the KL of each variable."""
    blocks: list[Block] = []
    if (table := use_table(context.frame)) is not None:
        how = HOW.format(**context.wording.texts, of_q=" of q" if context.wording.is_vae else "") + (
            HOW_GAP if context.wording.is_vae else ""
        )
        blocks += [Tabular(table[0], "latents", table[1]), How(how)]
    shown = CURVES if context.wording.is_vae else {PERPLEXITY: CURVES[PERPLEXITY]}
    for number, (name, (title, words)) in enumerate(shown.items()):
        many = curves.n_panels(context.history, name) > MAX_PANELS
        draw = curves.summary if many else curves.curves
        if panels := draw(context.history, name, "step", context.styles, words):
            blocks += [Heading(title), Pictures(name.rpartition("/")[2].replace("_", "-"), panels, legend=number == 0)]
    if context.wording.is_vae and (panel := kl_panel(context)):
        blocks += [Heading("KL of each variable"), Pictures("kl-per-variable", [panel]), How(HOW_KL)]
    return Section(
        "latents", "Latent use", blocks or [Words("No finished run has stored how its codes are used.", "empty")]
    )


def use_table(runs: pd.DataFrame) -> tuple[Table, pd.DataFrame] | None:
    """Return the mean of each latent metric over the finished runs of a setting; None if there are none."""
    finished = runs[runs["status"] == FINISHED]
    known = COLUMNS if is_vae(runs) else {n: how for n, how in COLUMNS.items() if n.startswith(LATENT_PREFIX)}
    shown = {name: how for name, how in known.items() if name in finished and finished[name].notna().any()}
    if not any(name.startswith(LATENT_PREFIX) or name.endswith("gap") for name in shown):
        return None
    keys = ["setting", "device", "estimator"]
    means = finished.groupby(keys, sort=True)[list(shown)].mean().reset_index()
    columns = [Column("Setting", numeric=False, term="setting"), Column("Device", numeric=False)]
    columns += [Column(title if is_vae(runs) else title.removesuffix(" of q"), term=term)
                for title, term, _ in shown.values()]  # fmt: skip
    rows = []
    for row in means.to_dict("records"):
        cells = [Cell(str(row["setting"]), str(row["setting"]), estimator=str(row["estimator"]))]
        cells.append(Cell(str(row["device"]), str(row["device"])))
        for name, (_, _, digits) in shown.items():
            value = float(row[name])
            cells.append(Cell(numbers.fixed(value, digits), None if math.isnan(value) else value))
        rows.append(cells)
    return Table("Latent use, mean over the finished runs of each setting", columns, rows), means


def kl_panel(context: Context) -> Panel | None:
    """Plot the sorted KL of the variables, a line for the first pictured run of each estimator."""
    runs = context.frame[context.frame["run_key"].isin(context.runs.latents)]
    runs = runs.sort_values(["estimator_label", "setting", "device", "seed"], kind="stable")
    runs = runs.drop_duplicates("estimator_label").head(MAX_LINES)
    lines = []
    for run in runs.to_dict("records"):
        kl = context.runs.latents[run["run_key"]].get("kl")
        if isinstance(kl, list) and all(isinstance(value, int | float) for value in kl):
            lines.append((run, np.sort(np.array(kl, dtype=float))[::-1]))
    if not lines:
        return None
    with one_panel("kl", (5.2, 3.1)) as (figure, axes):
        for run, kl in lines:
            how = context.styles[run["estimator_label"]]
            axes.plot(np.arange(1, len(kl) + 1), kl, color=how.hex, linewidth=1.8, linestyle=palette.line(how.dash),
                      marker=how.marker, markersize=4)  # fmt: skip
        finish(axes, "KL of each variable, sorted", "latent variable, by its rank", "nats")
        axes.set_ylim(bottom=0)
        spoken = "; ".join(f"{run['setting']}: {kl[0]:.2f} to {kl[-1]:.2f}" for run, kl in lines)
        return inline(figure, f"KL divergence of each latent variable, sorted. {spoken}.", wide=True)
