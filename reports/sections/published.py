"""Published numbers for the same estimators, data and code shapes, next to what was measured here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.contract.stored_run import (
    FINISHED,
    PARAM_CATEGORIES,
    PARAM_DATA,
    PARAM_LATENTS,
    TEST_PREFIX,
)
from reports.page import numbers
from reports.page.blocks import Block, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context
from reports.page.table import Cell, Column, Table
from reports.sections import published_curves
from reports.sections.published_numbers import Published
from reports.sections.published_numbers import numbers as published_numbers
from reports.store.frame import WORST

SHAPE = (PARAM_LATENTS, PARAM_CATEGORIES)
SAME = (PARAM_DATA, *SHAPE)
"""What must be equal, if a source states it: otherwise the numbers are of different problems."""
HOW = (
    "A published number stands beside runs of the same estimator on the same data with codes of the same shape: the "
    "setting whose protocol differs in the fewest stated fields, and of several the best. A number of an epoch is "
    "compared with the same epoch, one of a test with runs that end there. The interval of the difference is Welch’s "
    "t, from the published deviation and seeds and those measured here; without a published deviation, or with fewer "
    "than three seeds on either side, there is none. The last column says what else differs between the two protocols: "
    "with anything in it the difference says nothing about an estimator. What a source does not state is not compared."
)
HOW_CURVES = (
    "Line: mean over the seeds of the setting in the table, a thin one per seed. Marks: published means with one "
    "standard deviation over seeds to either side."
)
COLUMNS = (
    Column("Estimator", numeric=False),
    Column("Metric", numeric=False, meaning="at an epoch, or else at the end of training"),
    Column("Published", meaning="mean ± standard deviation over seeds, where the source gives them"),
    Column("Measured", term="mean"),
    Column("Difference", meaning="measured − published, with its 95 % interval by Welch’s t"),
    Column("What differs", numeric=False, meaning="published → here"),
)


def section(context: Context) -> Section:
    """Show a row per published number that something was measured for; nothing for another task than the VAE."""
    if not context.wording.is_vae:
        text = "The published numbers that reports know are of the categorical VAE, so there are none for this task."
        return Section("published", "Published against measured", [Words(text, "empty")])
    rows = sorted(_rows(context), key=lambda row: (row["source"], row["estimator"], row["metric"], row["epoch"] or 0))
    if not rows:
        shape = " × ".join(_values(context.frame, name) for name in SHAPE)
        data = _values(context.frame, PARAM_DATA)
        text = (
            f"No number that we know of is published for these estimators, data ({data}) and shape of codes ({shape})."
        )
        return Section("published", "Published against measured", [Words(text, "empty")])
    blocks: list[Block] = []
    for source in dict.fromkeys(row["source"] for row in rows):
        mine = [row for row in rows if row["source"] == source]
        blocks.append(Tabular(_table(mine), "published", _frame(mine)))
    blocks.append(How(HOW))
    if panels := published_curves.panels(rows, context.history, context.styles):
        blocks += [Heading("Curves and published epochs"), Pictures("published", panels, legend=True), How(HOW_CURVES)]
    return Section("published", "Published against measured", blocks)


def _values(runs: pd.DataFrame, name: str) -> str:
    found = sorted(set(runs[name].dropna().astype(str))) if name in runs else []
    return ", ".join(found) or "unknown"


def _rows(context: Context) -> Iterator[dict[str, Any]]:
    finished = context.frame[context.frame["status"] == FINISHED]
    for published in published_numbers():
        runs = finished[finished["estimator"] == published.estimator]
        for name in SAME:
            if name in published.protocol:
                there = runs[name].astype(str) if name in runs else pd.Series(index=runs.index, dtype=object)
                runs = runs[there == str(published.protocol[name])]
        values = _measured(context, runs, published) if len(runs) else pd.Series(dtype=float)
        if len(values):
            yield _row(published, runs[runs["run_key"].isin(values.index)], values)


def _measured(context: Context, runs: pd.DataFrame, published: Published) -> pd.Series:
    """Return the measured values of one setting on one device, by run key.

    It is the setting that differs in the fewest fields, one without failed runs before others, the best of those.
    """
    found = _values_at(context, runs, published)
    if found.empty:
        return found
    named = runs.set_index("run_key").loc[found.index]
    keys = [named["setting"], named["device"]]
    bad = context.frame[context.frame["status"].isin(WORST)].groupby(["setting", "device"]).size()
    means = found.groupby(keys).mean().to_frame("mean")
    means["differing"] = [
        len(list(_differing(published.protocol, runs[(runs["setting"] == setting) & (runs["device"] == device)])))
        for setting, device in means.index
    ]
    means["has_failed"] = bad.reindex(means.index).fillna(0) > 0
    setting, device = means.sort_values(["differing", "has_failed", "mean"], kind="stable").index[0]
    best: pd.Series = found[(named["setting"] == setting) & (named["device"] == device)]
    return best


def _values_at(context: Context, runs: pd.DataFrame, published: Published) -> pd.Series:
    """Return the value of each run at the published epoch, by run key; at the end of training without one."""
    metric, epoch = published.metric, published.epoch
    history = context.history[context.history["run_key"].isin(runs["run_key"])].sort_values("epoch", kind="stable")
    is_of_test = metric.startswith(TEST_PREFIX)
    if epoch is not None and (history.empty or not context.runs.epochs_known):
        return pd.Series(dtype=float)
    if epoch is not None and is_of_test:
        last = history.groupby("run_key")["epoch"].last()
        runs = runs[runs["run_key"].isin(last.index[last == epoch])]
    if (epoch is None or is_of_test) and metric in runs:
        return runs.set_index("run_key")[metric].dropna().astype(float)
    if is_of_test or metric not in history:
        return pd.Series(dtype=float)
    at = history if epoch is None else history[history["epoch"] == epoch]
    found: pd.Series = at.groupby("run_key")[metric].last().dropna().astype(float)
    return found


def _row(published: Published, runs: pd.DataFrame, values: pd.Series) -> dict[str, Any]:
    interval = st.t_interval(values.to_numpy())
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan
    theirs = st.Sample(published.mean, published.sd, published.n)
    difference = st.welch_interval(st.Sample(mean, sd, len(values)), theirs)
    return {
        "source": published.source,
        "reference": published.reference,
        "what": published.what,
        "metric": published.metric,
        "epoch": published.epoch,
        "estimator": published.estimator,
        "setting": runs["setting"].iloc[0],
        "device": runs["device"].iloc[0],
        "published": published.mean,
        "published_sd": published.sd,
        "published_n": published.n,
        "n": len(values),
        "measured": mean,
        "measured_sd": sd,
        "low": interval.low,
        "high": interval.high,
        "difference": mean - published.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "differs": "; ".join(_differing(published.protocol, runs)),
    }


def _differing(protocol: Mapping[str, Any], runs: pd.DataFrame) -> Iterator[str]:
    """Yield ``bound_samples 1000 → 100`` for every stated field that is different here."""
    for name, stated in protocol.items():
        here = sorted({str(value) for value in runs[name].dropna()}) if name in runs else []
        expected = [] if stated is None else [str(stated)]
        if here != expected and not _same_number(stated, here):
            shown = "not set" if stated is None else stated
            yield f"{name.partition('.')[2]} {shown} → {', '.join(here) or 'not stored'}"
    for name in SHAPE:
        if name not in protocol:
            yield f"{name.partition('.')[2]} not stated"


def _same_number(stated: Any, here: list[str]) -> bool:
    try:
        return len(here) == 1 and math.isclose(float(stated), float(here[0]))
    except (TypeError, ValueError):
        return False


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    numeric = ["published_sd", "measured_sd", "difference_low", "difference_high"]
    return pd.DataFrame(rows).astype({"epoch": "Int64", "published_n": "Int64", **dict.fromkeys(numeric, float)})


def _table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows of one source."""
    shown = []
    for row in rows:
        epoch = row["epoch"]
        shown.append([
            Cell(str(row["setting"]), str(row["setting"]), estimator=row["estimator"]),
            Cell(row["metric"] + ("" if epoch is None else f", epoch {epoch}"), row["metric"]),
            Cell(_with_sd(row["published"], row["published_sd"], row["published_n"]), row["published"]),
            Cell(_with_sd(row["measured"], row["measured_sd"], row["n"]), row["measured"]),
            Cell(_difference(row), row["difference"]),
            Cell(row["differs"] or "nothing that is stated", row["differs"], tone="warn" if row["differs"] else ""),
        ])  # fmt: skip
    first = rows[0]
    caption = f"{first['source']} ({first['reference']}): {first['what']}. Nats per example"
    return Table(caption, COLUMNS, shown)


def _with_sd(mean: float, sd: float | None, n: int | None) -> str:
    """Return ``133.40 ± 0.60 (n = 10)``, as far as it is known."""
    spread = "" if sd is None or np.isnan(sd) else f" ± {numbers.fixed(sd)}"
    return f"{numbers.fixed(mean)}{spread}" + (f" (n = {n})" if n is not None else "")


def _difference(row: Mapping[str, Any]) -> str:
    interval = numbers.interval(row["difference_low"], row["difference_high"], signed=True)
    return numbers.fixed(row["difference"], signed=True) + ("" if interval == "–" else f" {interval}")
