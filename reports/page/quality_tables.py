"""The tables of a notebook and of the section on quality: levels of settings, and differences to the baseline."""

from __future__ import annotations

import math

import pandas as pd

from reports import comparison
from reports.comparison import Metric
from reports.contract.errors import ReportError
from reports.page import numbers
from reports.page.table import Cell, Column, Table
from reports.process_settings import default_settings


def _num(value: float, digits: int = 2, *, signed: bool = False, tone: str = "") -> Cell:
    known = value is not None and not math.isnan(value)
    return Cell(numbers.fixed(value, digits, signed=signed), numbers.sortable(value) if known else None, tone=tone)


def setting_cells(row: pd.Series, several_devices: bool) -> list[Cell]:
    """Return the cells of a setting, and of its device where there are several."""
    cells = [Cell(str(row["setting"]), str(row["setting"]), estimator=str(row["estimator"]))]
    return [*cells, Cell(str(row["device"]), str(row["device"]))] if several_devices else cells


def setting_columns(several_devices: bool) -> list[Column]:
    """Return the columns of those cells."""
    device = [Column("Device", numeric=False)] if several_devices else []
    return [Column("Setting", numeric=False, meaning="estimator · schedule · other axes", term="setting"), *device]


@default_settings()
def quality(runs: pd.DataFrame, metric: str | None = None) -> Table:
    """Return mean, interval, median and IQM of each setting of ``Runs.runs``, best first.

    ``metric`` is by default the most important that there is. Raises ReportError if no run finished.
    """
    chosen = comparison.metrics(runs, first=metric)
    if not chosen:
        raise ReportError("quality: expected a finished run, got none.")
    return levels_table(comparison.levels(runs, chosen[0]), chosen[0])


@default_settings()
def differences(runs: pd.DataFrame, baseline: str | None = None, metric: str | None = None) -> Table:
    """Return the paired differences of each setting of ``Runs.runs`` to a baseline, by default straight_through.

    Raises ReportError if no run finished.
    """
    chosen, other = comparison.metrics(runs, first=metric), comparison.choose_baseline(runs, baseline)
    if not chosen:
        raise ReportError("differences: expected a finished run, got none.")
    return differences_table(comparison.differences(runs, chosen[0], other), chosen[0], other.label)


def levels_table(levels: pd.DataFrame, metric: Metric) -> Table:
    """Return mean, median, IQM and interval of each setting, best first."""
    devices, digits = levels["device"].nunique() > 1, metric.digits
    columns = [
        *setting_columns(devices),
        Column("n", meaning="finished runs of those planned", term="n"),
        Column("Mean", meaning="of the finished runs", term="mean"),
        Column("95 % interval", meaning="Student's t, of the mean", term="interval"),
        Column("Median", meaning="failed and diverged runs count as worst", term="median"),
        Column("IQM", meaning="mean of the middle half; failed and diverged runs count as worst", term="iqm"),
    ]
    rows = []
    for _, row in levels.iterrows():
        short = row["n"] < row["n_planned"]
        n = Cell(
            f"{row['n']} of {row['n_planned']}" if short else str(row["n"]), row["n"], tone="warn" if short else ""
        )
        width = None if math.isnan(row["low"]) else row["high"] - row["low"]
        span = Cell(numbers.interval(row["low"], row["high"], digits), width)
        ranked = (_ranked(row, name, digits) for name in ("median", "iqm"))
        rows.append([*setting_cells(row, devices), n, _num(row["mean"], digits), span, *ranked])
    caption = ", ".join(filter(None, [f"{metric.title} ({metric.name})", metric.per]))
    return Table(caption + (f", {metric.better} is better" if metric.compared else ""), columns, rows)


def _ranked(row: pd.Series, name: str, digits: int) -> Cell:
    """Show median or IQM, with its own interval on hovering, if there is one. The CSV has it too."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    unknown = math.isnan(low) or (math.isinf(low) and math.isinf(high))
    title = "too few runs for an interval" if unknown else f"95 % interval {numbers.interval(low, high, digits)}"
    value = float(row[name])
    return Cell(numbers.fixed(value, digits), None if math.isnan(value) else numbers.sortable(value), title=title)


def differences_table(found: pd.DataFrame, metric: Metric, baseline: str) -> Table:
    """Return paired differences to the baseline, with a column about the band of a metric that has one."""
    devices, digits = found["device"].nunique() > 1, metric.digits
    words = "against the band of equivalence"
    band_column = [Column(band_title(metric), numeric=False, meaning=words, term="equivalence")]
    band_column = [] if metric.band is None else band_column
    columns = [
        *setting_columns(devices),
        Column(
            "Baseline’s",
            numeric=False,
            meaning="the baseline's schedule, or its setting: same seeds and device",
            term="pair",
        ),
        Column("Pairs", meaning="seeds that both tried to the end", term="pair"),
        Column("Mean diff.", meaning="setting − baseline, pairs in which both finished", term="pair"),
        Column("95 % interval", meaning="Student's t on the paired differences", term="interval"),
        Column("Median diff.", meaning="failed and diverged runs count as worst", term="median"),
        Column(
            "P(better)", meaning=f"share of pairs in which the setting is {metric.better}, ties half", term="p-better"
        ),
        *band_column,
        Column(
            "Holm p",
            meaning="Wilcoxon signed-rank, Holm over this table; “floor” where no p could be small",
            term="holm",
        ),
    ]
    rows = []
    for _, row in found.iterrows():
        pairs = f"{row['n_pairs']}" + (f" ({row['n_bad']} failed)" if row["n_bad"] else "")
        tone = "" if row["n_bad"] else _tone(row, metric)
        width = None if math.isnan(row["low"]) else row["high"] - row["low"]
        rows.append(
            [
                *setting_cells(row, devices),
                Cell(str(row["against"]) or "–", str(row["versus"]), title=str(row["versus"])),
                Cell(pairs, row["n_pairs"], tone="warn" if row["n_bad"] else ""),
                _num(row["mean"], digits, signed=True, tone=tone),
                Cell(numbers.interval(row["low"], row["high"], digits, signed=True), width, tone=tone),
                _num(row["median"], digits, signed=True),
                _improvement(row),
                *([] if metric.band is None else [_verdict(str(row["equivalence"]))]),
                _holm(row),
            ]
        )
    caption = f"{metric.title} ({metric.name}): paired difference to {baseline}"
    return Table(", ".join(filter(None, [caption, metric.per])), columns, rows)


def band_title(metric: Metric) -> str:
    """Return the band of a metric as a heading: ``±0.50 nats``."""
    return f"±{numbers.band(metric.band)} {metric.unit}".strip()


def _tone(row: pd.Series, metric: Metric) -> str:
    """Return whether the interval of a difference lies on the better or the worse side of zero."""
    ends = metric.sign * row["low"], metric.sign * row["high"]
    return "good" if max(ends) < 0 else "bad" if min(ends) > 0 else ""


def _improvement(row: pd.Series) -> Cell:
    span = numbers.interval(row["improvement_low"], row["improvement_high"])
    value = float(row["probability_of_improvement"])
    return Cell(f"{numbers.fixed(value)} {span}" if span != "–" else numbers.fixed(value), value)


def _verdict(word: str) -> Cell:
    return Cell(word, word, tone={"better": "good", "equivalent": "good", "worse": "bad"}.get(word, "quiet"))


def _holm(row: pd.Series) -> Cell:
    """Show the corrected p, or the smallest possible one if the pairs are too few for .05."""
    least = min(1.0, row["floor"] * row["n_comparisons"])
    if row["floor"] > 0.05:
        n = row["n_pairs"]
        floor = numbers.p_value(row["floor"])
        title = f"the smallest possible p at {n} pair{'s' * (n != 1)} is {floor} before Holm's correction"
        return Cell(f"floor {floor}", 1 + row["floor"], tone="quiet", title=title)
    title = f"uncorrected {numbers.p_value(row['p'])}; smallest possible after Holm {numbers.p_value(least)}"
    return Cell(numbers.p_value(row["p_holm"]), row["p_holm"], title=title)
