"""Published numbers for the same estimators and code shapes, next to what was measured here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from reports import statistics as st
from reports.contract.stored_run import FINISHED, PARAM_CATEGORIES, PARAM_DATA, PARAM_LATENTS
from reports.page import numbers
from reports.page.blocks import How, Section, Tabular, Words
from reports.page.context import Context
from reports.page.table import Cell, Column, Table
from reports.store.frame import WORST

FILE = Path(__file__).with_name("published.yaml")
SHAPE = (PARAM_LATENTS, PARAM_CATEGORIES)
SAME = (PARAM_DATA, *SHAPE)
"""What must be equal, if a source states it: otherwise the numbers are of different problems."""
HOW = (
    "A published number stands beside runs of the same estimator on the same data with codes of the same shape, the "
    "best setting of each. The last column says what else differs between the two protocols: with anything in it the "
    "difference says nothing about an estimator. What a source does not state is not compared."
)
COLUMNS = (
    Column("Source", numeric=False),
    Column("Estimator", numeric=False),
    Column("Published"),
    Column("Measured", term="mean"),
    Column("95 % interval", term="interval"),
    Column("Difference", meaning="measured − published"),
    Column("What differs", numeric=False, meaning="published → here"),
)


@lru_cache(maxsize=1)
def entries() -> list[dict[str, Any]]:
    """Return the published numbers with their protocols (reports/sections/published.yaml)."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def section(context: Context) -> Section:
    """Show a row per published number that something was measured for; nothing for another task than the VAE."""
    if not context.wording.is_vae:
        text = "The published numbers that reports know are of the categorical VAE, so there are none for this task."
        return Section("published", "Published against measured", [Words(text, "empty")])
    rows = sorted(_rows(context), key=lambda row: (row["source"], row["estimator"]))
    if not rows:
        shape = " × ".join(_values(context.frame, name) for name in SHAPE)
        data = _values(context.frame, PARAM_DATA)
        text = (
            f"No number that we know of is published for these estimators, data ({data}) and shape of codes ({shape})."
        )
        return Section("published", "Published against measured", [Words(text, "empty")])
    frame = pd.DataFrame(rows)
    return Section("published", "Published against measured", [Tabular(_table(rows), "published", frame), How(HOW)])


def _values(runs: pd.DataFrame, name: str) -> str:
    found = sorted(set(runs[name].dropna().astype(str))) if name in runs else []
    return ", ".join(found) or "unknown"


def _rows(context: Context) -> Iterator[dict[str, Any]]:
    finished = context.frame[context.frame["status"] == FINISHED]
    for entry in entries():
        fitting = finished
        for name in SAME:
            if name in entry["protocol"]:
                there = fitting[name].astype(str) if name in fitting else pd.Series(index=fitting.index, dtype=object)
                fitting = fitting[there == str(entry["protocol"][name])]
        for estimator, number in entry["values"].items():
            runs = fitting[fitting["estimator"] == estimator]
            values = _measured(context, runs, entry)
            if len(values):
                yield _row(entry, str(estimator), float(number), runs, values)


def _measured(context: Context, runs: pd.DataFrame, entry: Mapping[str, Any]) -> pd.Series:
    """Return the measured values of the best setting on one device, by run key.

    A setting without a failed run goes before the others.
    """
    metric = str(entry["metric"])
    found: pd.Series
    if "epoch" in entry or metric not in runs:
        history = context.history[context.history["run_key"].isin(runs["run_key"])]
        if metric not in history or history.empty:
            return pd.Series(dtype=float)
        epochs = history[history["epoch"] == entry["epoch"]] if "epoch" in entry else history.sort_values("epoch")
        found = epochs.groupby("run_key")[metric].last().dropna()
    else:
        found = runs.set_index("run_key")[metric].dropna().astype(float)
    if found.empty:
        return found
    named = runs.set_index("run_key").reindex(found.index)
    keys = [named["setting"], named["device"]]
    bad = context.frame[context.frame["status"].isin(WORST)].groupby(["setting", "device"]).size()
    means = found.groupby(keys).mean().to_frame("mean")
    means["has_failed"] = bad.reindex(means.index).fillna(0) > 0
    setting, device = means.sort_values(["has_failed", "mean"], kind="stable").index[0]
    best: pd.Series = found[(named["setting"] == setting) & (named["device"] == device)]
    return best


def _row(
    entry: Mapping[str, Any], estimator: str, number: float, runs: pd.DataFrame, values: pd.Series
) -> dict[str, Any]:
    used = runs[runs["run_key"].isin(values.index)]
    interval = st.t_interval(values.to_numpy())
    return {
        "source": entry["source"],
        "reference": entry["reference"],
        "what": entry["what"],
        "metric": entry["metric"],
        "estimator": estimator,
        "setting": used["setting"].iloc[0],
        "published": number,
        "n": len(values),
        "measured": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "differs": "; ".join(_differing(entry["protocol"] | entry.get("parameters", {}).get(estimator, {}), used)),
    }


def _differing(protocol: Mapping[str, Any], runs: pd.DataFrame) -> Iterator[str]:
    """Yield ``bound_samples 1000 → 100`` for every stated field that is different here."""
    for name, stated in protocol.items():
        here = sorted({str(value) for value in runs[name].dropna()}) if name in runs else []
        if here != [str(stated)] and not _same_number(stated, here):
            yield f"{name.partition('.')[2]} {stated} → {', '.join(here) or 'not stored'}"
    for name in SHAPE:
        if name not in protocol:
            yield f"{name.partition('.')[2]} not stated"


def _same_number(stated: Any, here: list[str]) -> bool:
    try:
        return len(here) == 1 and math.isclose(float(stated), float(here[0]))
    except (TypeError, ValueError):
        return False


def _table(rows: list[dict[str, Any]]) -> Table:
    shown = []
    for row in rows:
        difference = row["measured"] - row["published"]
        source = f"{row['source']} ({row['reference']}): {row['what']}"
        width = row["high"] - row["low"]
        shown.append([
            Cell(source, source), Cell(str(row["setting"]), str(row["setting"]), estimator=row["estimator"]),
            Cell(numbers.fixed(row["published"]), row["published"]),
            Cell(f"{numbers.fixed(row['measured'])} (n = {row['n']})", row["measured"]),
            Cell(numbers.interval(row["low"], row["high"]), None if np.isnan(width) else width),
            Cell(numbers.fixed(difference, signed=True), difference),
            Cell(row["differs"] or "nothing that is stated", row["differs"], tone="warn" if row["differs"] else ""),
        ])  # fmt: skip
    return Table("Published against measured, nats per example", COLUMNS, shown)
