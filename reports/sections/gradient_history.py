"""Gradient diagnostics during training: the stored `gradient/<estimator>/<metric>` as frames, tables, curves and words.

A frame is that of `reports.page.gradients`, one row for each measured estimator, with the metrics of the encoder's
parameters as further columns `encoder/<metric>`. There is one for each setting, for the first and the last epoch.
A task with several layers has them of each layer: `gradient/<layer>.<estimator>/<metric>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from reports.contract.settings import distinct
from reports.contract.stored_run import ENCODER_PREFIX, GRADIENT_PREFIX, PARAM_BASKET, TRUTH_ERROR
from reports.page import gradients
from reports.page.curves import curves as curves_over_training
from reports.page.gradients import Section
from reports.page.palette import Style
from reports.page.svg import Panel
from reports.page.table import Table
from reports.page.wording import VAE, Wording
from reports.store.frame import IDENTITY, Runs

OWN = "own"
_NAME = re.compile(GRADIENT_PREFIX + "([^/]+)/(.+)")
_TRUTH = re.compile(f"{GRADIENT_PREFIX}(?:(.+)[.])?{TRUTH_ERROR.removeprefix(GRADIENT_PREFIX)}")
_BETWEEN_LABELS = re.compile(r", (?![^()]*\))")  # not within the parentheses of a label
_CURVES = {
    "relative_bias": "relative bias on the logits",
    "cosine": "cosine on the logits",
    "snr": "signal-to-noise on the logits",
}


def layers(history: pd.DataFrame) -> list[str]:
    """Return the names of the layers that were measured, in their order. The only layer of a task has the name ""."""
    matches = [(column, _TRUTH.fullmatch(str(column))) for column in history]
    return [match[1] or "" for column, match in matches if match and history[column].notna().any()] or [""]


def prefix(layer: str) -> str:
    """Return what the metrics of a layer begin with."""
    return f"{GRADIENT_PREFIX}{layer}." if layer else GRADIENT_PREFIX


def of_layer(layer: str) -> str:
    """Return the end of a title that names a layer, empty for the only one of a task."""
    return f", layer {layer}" if layer else ""


def sections(runs: Runs) -> list[Section]:
    """Return one section for each setting, device and layer, at its first epoch and its last, over seeds.

    The run's own estimator comes first.
    """
    rows = long(runs.history)
    labels, several = _labels(runs), rows["device"].nunique() > 1
    found = []
    known = layers(runs.history)
    groups = rows.groupby(["setting", "device"], sort=True)
    by_layer = ((key, layer, group[group["layer"] == layer]) for key, group in groups for layer in known)
    for (setting, device), layer, group in by_layer:
        if group.empty:
            continue
        name = f"{setting} on {device}{of_layer(layer)}" if several else f"{setting}{of_layer(layer)}"
        for epoch in dict.fromkeys((group["epoch"].min(), group["epoch"].max())):
            shown = group[group["epoch"] == epoch]
            n_seeds = shown["seed"].nunique()
            meaning = f"At the parameters of {name}" + (f", over {n_seeds} seeds" if n_seeds > 1 else "")
            title, of_truth = f"{name}, epoch {int(epoch)}", truth(runs.history, layer)
            found.append(Section(title, of_truth, _frame(shown, labels), meaning))
    return found


def _labels(runs: Runs) -> dict[str, str]:
    """Return the labels of a basket's estimators by their names among the metrics, in the order of the basket."""
    stated = {name: label for sweep in runs.sweeps for name, label in sweep.basket.items()}
    return stated or _labels_of_older_store(runs.runs)


def _labels_of_older_store(runs: pd.DataFrame) -> dict[str, str]:
    """Return the same of an older store, which has the labels as one text."""
    listed = list(runs[PARAM_BASKET].dropna().map(str).unique()) if PARAM_BASKET in runs else []
    labels = [label for text in listed for label in _BETWEEN_LABELS.split(str(text)) if label]
    return {re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-"): label for label in labels}


def _frame(group: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    order = {name: position for position, name in enumerate([OWN, *labels])}
    metrics = [*gradients.NUMBERS, *(str(name) for name in group if str(name).startswith(ENCODER_PREFIX))]
    seeds = group.reindex(columns=["measured", *metrics]).groupby("measured", sort=False)
    means = seeds.mean()
    for name in metrics:  # intervals: the union over seeds; p: the smallest, times their number
        if name.endswith("_low"):
            means[name] = seeds[name].min()
        elif name.endswith("_high"):
            means[name] = seeds[name].max()
        elif name.endswith("p_value"):
            means[name] = (seeds[name].min() * seeds[name].count()).clip(upper=1)
    means = means.reset_index().sort_values(
        "measured", key=lambda names: names.map(lambda name: order.get(name, len(order)))
    )
    own = f"{group['estimator_label'].iloc[0]} (its own)"
    names = {OWN: own, **labels}
    texts = distinct(means["measured"], lambda name: names.get(name, name), lambda name: f"{names.get(name)} [{name}]")
    named = means["measured"].map(texts)
    return means.drop(columns="measured").assign(estimator=named, reason="").reset_index(drop=True)


def long(history: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, epoch, layer and measured estimator, with a column per metric."""
    taken = {*IDENTITY, "epoch", "step", "elapsed_s", "measured", "layer"}
    known = sorted(filter(None, layers(history)), key=len, reverse=True)
    found = [
        (match[1], match[2], column)
        for column in history
        if (match := _NAME.fullmatch(str(column))) and match[2] not in taken
    ]
    parts = []
    for named in dict.fromkeys(name for name, _, _ in found):
        columns = {column: metric for name, metric, column in found if name == named}
        layer = next((layer for layer in known if named.startswith(f"{layer}.")), "")
        part = history[[*IDENTITY, "epoch", *columns]].dropna(subset=list(columns), how="all")
        measured = named.removeprefix(f"{layer}.") if layer else named
        parts.append(part.rename(columns=columns).assign(measured=measured, layer=layer))
    empty = pd.DataFrame(columns=[*IDENTITY, "epoch", "measured", "layer"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def tables(shown: Sequence[Section], wording: Wording = VAE) -> list[Table]:
    """Return a table for each section."""
    titles = [f"{section.meaning}: {section.title.rpartition(', ')[2]}" for section in shown]
    return [gradients.table(section.frame, title, wording) for section, title in zip(shown, titles, strict=True)]


def last_panels(shown: Sequence[Section]) -> list[tuple[str, Panel]]:
    """Return whose parameters, and a figure, for the last epoch of each setting."""
    last = {section.meaning: section for section in shown}
    return [(words, gradients.panel(section)) for words, section in last.items()]


def curves(history: pd.DataFrame, styles: Mapping[str, Style]) -> list[tuple[str, Sequence[Panel]]]:
    """Plot bias, cosine and signal-to-noise of each run's own estimator over training.

    A bias whose interval begins at 0 is drawn as 0: none was found.
    """
    if long(history)["epoch"].nunique() < 2:
        return []
    found = []
    for layer in layers(history):
        own = f"{prefix(layer)}{OWN}/"
        bias, low = f"{own}relative_bias", f"{own}relative_bias_low"
        if low in history:
            history = history.assign(**{bias: history[bias].where(~(history[low] <= 0), 0.0)})
        named = {f"{own}{metric}": f"{words}{of_layer(layer)}" for metric, words in _CURVES.items()}
        found += [(words, curves_over_training(history, name, "step", styles, words)) for name, words in named.items()]
    return [(words[0].upper() + words[1:], panels) for words, panels in found if panels]


def truth(history: pd.DataFrame, layer: str = "") -> str:
    """Return what the estimators of a layer were compared with, in a sentence; empty if nothing was measured."""
    column = f"{prefix(layer)}{TRUTH_ERROR.removeprefix(GRADIENT_PREFIX)}"
    if column not in history or history[column].isna().all():
        return ""
    error = history[column].max()
    if error == 0:
        return "The true gradient is exact: the expectation over all codes."
    many = "There are too many codes for enumeration"
    return (
        f"{'Later layers are drawn, or t' + many[1:] if layer else many}, so the true gradient is the long average of "
        f"an unbiased estimator; its own standard error is up to {error:.2g} of its norm, and every interval has it in "
        "it."
    )
