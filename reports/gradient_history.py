"""Gradient diagnostics of training: the stored `gradient/<estimator>/<metric>` as tables, curves and a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports import figures
from reports.frame import IDENTITY
from reports.gradients import rounded
from reports.palette import Style
from reports.svg import Panel
from reports.tables import Cell, Column, Table

OWN = "own"
_NAME = re.compile(r"gradient/([^/]+)/(.+)")
_COLUMNS = {
    "relative_bias": ("Rel. bias, logits", "‖E ĝ − ∇‖ / ‖∇‖ on the logits, noise floor subtracted"),
    "encoder/relative_bias": ("encoder", "the same on the encoder's parameters"),
    "cosine": ("Cosine, logits", "between the mean gradient and the true one"),
    "encoder/cosine": ("encoder", "the same on the encoder's parameters"),
    "snr": ("SNR, logits", "length of the mean gradient ÷ √variance of one draw"),
    "encoder/snr": ("encoder", "the same on the encoder's parameters"),
    "variance": ("Variance", "trace of the covariance of one draw on the logits, mean over examples"),
    "evaluations": ("Evals", "evaluations of the decoder per example and draw, at most"),
}
_CURVES = {
    "gradient/own/relative_bias": "relative bias on the logits",
    "gradient/own/cosine": "cosine on the logits",
    "gradient/own/snr": "signal-to-noise on the logits",
}


def long(history: pd.DataFrame) -> pd.DataFrame:
    """One row per run, epoch and measured estimator; a column per metric."""
    found = [(match[1], match[2], column) for column in history if (match := _NAME.fullmatch(str(column)))]
    parts = []
    for measured in dict.fromkeys(name for name, _, _ in found):
        columns = {column: metric for name, metric, column in found if name == measured}
        part = history[[*IDENTITY, "epoch", *columns]].dropna(subset=list(columns), how="all")
        parts.append(part.rename(columns=columns).assign(measured=measured))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*IDENTITY, "epoch", "measured"])


def tables(history: pd.DataFrame) -> list[Table]:
    """What was measured after the first and after the last epoch: means over seeds, in brackets their range."""
    rows = long(history)
    epochs = sorted({rows["epoch"].min(), rows["epoch"].max()}) if len(rows) else []
    return [_table(rows[rows["epoch"] == epoch], int(epoch)) for epoch in epochs]


def _table(rows: pd.DataFrame, epoch: int) -> Table:
    columns = [Column("At the parameters of", numeric=False), Column("Estimator", numeric=False), Column("Seeds")]
    columns += [Column(title, meaning=meaning) for title, meaning in _COLUMNS.values()]
    body = []
    for (setting, measured), group in rows.groupby(["setting", "measured"], sort=False):
        name = f"{group['estimator_label'].iloc[0]} (its own)" if measured == OWN else str(measured)
        own = str(group["estimator"].iloc[0])
        cells = [Cell(str(setting), str(setting), estimator=own), Cell(name, name), Cell(str(len(group)), len(group))]
        body.append([*cells, *(_spread(group[key] if key in group else pd.Series(dtype=float)) for key in _COLUMNS)])
    caption = f"Gradient quality after epoch {epoch}: mean over seeds, in brackets smallest and largest"
    return Table(caption, columns, sorted(body, key=lambda row: (row[0].text, "(its own)" not in row[1].text)))


def _spread(values: pd.Series[Any]) -> Cell:
    known = values[np.isfinite(values.astype(float))]
    if known.empty:
        return Cell("–")
    text = rounded(known.mean())
    if len(known) > 1 and known.min() != known.max():
        text += f" [{rounded(known.min())}, {rounded(known.max())}]"
    return Cell(text, float(known.mean()))


def curves(history: pd.DataFrame, styles: Mapping[str, Style]) -> list[tuple[str, Sequence[Panel]]]:
    """How bias, cosine and signal-to-noise of each run's own estimator go with training."""
    if long(history)["epoch"].nunique() < 2:
        return []
    found = [(words, figures.curves(history, name, "step", styles, words)) for name, words in _CURVES.items()]
    return [(words[0].upper() + words[1:], panels) for words, panels in found if panels]


def truth(history: pd.DataFrame) -> str:
    """What the estimators were held against, in a sentence; empty where nothing was measured."""
    if "gradient/truth_error" not in history or history["gradient/truth_error"].isna().all():
        return ""
    error = history["gradient/truth_error"].max()
    if error == 0:
        return "The true gradient is exact: the expectation over all codes."
    return (
        "There are too many codes for enumeration, so the true gradient is the long average of an unbiased estimator; "
        f"its own standard error is up to {error:.2g} of its norm, and every interval has it in it."
    )
