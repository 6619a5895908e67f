"""The report's tables: rows of cells with text to read, a value to sort by and a tone. No HTML here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd

from reports import comparison
from reports.ambient import put_aside
from reports.comparison import DESCRIPTION, Metric
from reports.contract.errors import ReportError
from reports.contract.settings import distinct, joined, quote
from reports.contract.stored_run import (
    DIVERGED,
    FAILED,
    FINISHED,
    IMAGES_PER_S,
    INTERRUPTED,
    PEAK_MB,
    RUNNING,
    SKIPPED,
    STEP_MEDIAN_S,
    STEP_P90_S,
    TOTAL_S,
)
from reports.store.frame import STATUSES

MINUS = "−"
_FARTHEST = 1e300


@dataclass(frozen=True)
class Cell:
    """``text`` is shown; ``sort`` orders the column; ``estimator`` gives it that estimator's colour."""

    text: str
    sort: float | str | None = None
    estimator: str = ""
    tone: str = ""
    title: str = ""
    link: str = ""  # where a click leads: a run in MLflow
    shade: float | None = None  # 0 to 1: how strongly a cell of a heat map is coloured


@dataclass(frozen=True)
class Column:
    """A heading; ``numeric`` columns are aligned on the right; ``meaning`` is the definition in a line."""

    title: str
    numeric: bool = True
    meaning: str = ""
    term: str = ""  # its place in reports.page.definitions


@dataclass(frozen=True, repr=False)
class Table:
    """A table that HTML, Markdown and LaTeX are written from."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        """Return the texts as a frame."""
        return pd.DataFrame(
            [[cell.text for cell in row] for row in self.rows], columns=[column.title for column in self.columns]
        )

    def __repr__(self) -> str:
        return f"Table({self.caption[:100]!r}, {len(self.rows)} rows × {len(self.columns)} columns)"

    def __str__(self) -> str:
        """Return what a terminal shows."""
        with put_aside():
            return f"{self.caption}\n{self.frame().to_string(index=False)}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        with put_aside():
            return str(
                self.frame().style.hide(axis="index").format(escape="html").set_caption(escape(self.caption)).to_html()
            )


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """Return fixed decimals with a real minus sign; – for nothing, ∞ for worst."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{abs(value):.{digits}f}"
    negative = value < 0 and float(text) != 0
    return (MINUS if negative else "+" if signed and float(text) != 0 else "") + text


def interval(low: float, high: float, digits: int = 2, *, signed: bool = False) -> str:
    """Return ``[low, high]``, or – if there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    return f"[{number(low, digits, signed=signed)}, {number(high, digits, signed=signed)}]"


def p_value(value: float) -> str:
    """Return a p-value with three decimals and no leading zero."""
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def _num(value: float, digits: int = 2, *, signed: bool = False, tone: str = "") -> Cell:
    known = value is not None and not math.isnan(value)
    return Cell(number(value, digits, signed=signed), orderable(value) if known else None, tone=tone)


def orderable(value: float) -> float:
    """Return the value, or a finite one that sorts like it if it is infinite, which the page cannot read."""
    return math.copysign(_FARTHEST, value) if math.isinf(value) else float(value)


def _setting(row: pd.Series, several_devices: bool) -> list[Cell]:
    cells = [Cell(str(row["setting"]), str(row["setting"]), estimator=str(row["estimator"]))]
    return [*cells, Cell(str(row["device"]), str(row["device"]))] if several_devices else cells


def _setting_columns(several_devices: bool) -> list[Column]:
    device = [Column("Device", numeric=False)] if several_devices else []
    return [Column("Setting", numeric=False, meaning="estimator · schedule · other axes", term="setting"), *device]


@put_aside()
def quality(runs: pd.DataFrame, metric: str | None = None) -> Table:
    """Return mean, interval, median and IQM of each setting of ``Runs.runs``, best first.

    ``metric`` is by default the most important that there is. Raises ReportError if no run finished.
    """
    chosen = comparison.metrics(runs, first=metric)
    if not chosen:
        raise ReportError("quality: expected a finished run, got none.")
    return levels_table(comparison.levels(runs, chosen[0].name, bad_is_worst=chosen[0].compared), chosen[0])


@put_aside()
def differences(runs: pd.DataFrame, baseline: str | None = None, metric: str | None = None) -> Table:
    """Return the paired differences of each setting of ``Runs.runs`` to a baseline, by default straight_through.

    Raises ReportError if no run finished.
    """
    chosen, other = comparison.metrics(runs, first=metric), comparison.choose_baseline(runs, baseline)
    if not chosen:
        raise ReportError("differences: expected a finished run, got none.")
    return differences_table(comparison.differences(runs, chosen[0].name, other), chosen[0], other.label)


def levels_table(levels: pd.DataFrame, metric: Metric) -> Table:
    """Return mean, median, IQM and interval of each setting, best first."""
    devices, digits = levels["device"].nunique() > 1, metric.digits
    columns = [
        *_setting_columns(devices),
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
        span = Cell(interval(row["low"], row["high"], digits), width)
        ranked = (_ranked(row, name, digits) for name in ("median", "iqm"))
        rows.append([*_setting(row, devices), n, _num(row["mean"], digits), span, *ranked])
    caption = ", ".join(filter(None, [f"{metric.title} ({metric.name})", metric.per]))
    return Table(caption + (", lower is better" if metric.compared else ""), columns, rows)


def _ranked(row: pd.Series, name: str, digits: int) -> Cell:
    """Show median or IQM, with its own interval on hovering, if there is one. The CSV has it too."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    unknown = math.isnan(low) or math.isinf(low)
    title = "too few runs for an interval" if unknown else f"95 % interval {interval(low, high, digits)}"
    value = float(row[name])
    return Cell(number(value, digits), None if math.isnan(value) else orderable(value), title=title)


def differences_table(found: pd.DataFrame, metric: Metric, baseline: str, band: float = 0.5) -> Table:
    """Return paired differences to the baseline; negative is better. A band of equivalence is one in nats."""
    devices, digits = found["device"].nunique() > 1, metric.digits
    words = "against the band of equivalence"
    band_column = [Column(f"±{number(band)} nats", numeric=False, meaning=words, term="equivalence")]
    band_column = band_column if metric.in_nats else []
    columns = [
        *_setting_columns(devices),
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
        Column("P(better)", meaning="share of pairs in which the setting is lower, ties half", term="p-better"),
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
        tone = "" if math.isnan(row["low"]) else "good" if row["high"] < 0 else "bad" if row["low"] > 0 else ""
        tone = "" if row["n_bad"] else tone
        width = None if math.isnan(row["low"]) else row["high"] - row["low"]
        rows.append(
            [
                *_setting(row, devices),
                Cell(str(row["against"]) or "–", str(row["versus"]), title=str(row["versus"])),
                Cell(pairs, row["n_pairs"], tone="warn" if row["n_bad"] else ""),
                _num(row["mean"], digits, signed=True, tone=tone),
                Cell(interval(row["low"], row["high"], digits, signed=True), width, tone=tone),
                _num(row["median"], digits, signed=True),
                _improvement(row),
                *([_verdict(str(row["equivalence"]))] if metric.in_nats else []),
                _holm(row),
            ]
        )
    caption = f"{metric.title} ({metric.name}): paired difference to {baseline}"
    return Table(", ".join(filter(None, [caption, metric.per])), columns, rows)


def _improvement(row: pd.Series) -> Cell:
    span = interval(row["improvement_low"], row["improvement_high"])
    value = float(row["probability_of_improvement"])
    return Cell(f"{number(value)} {span}" if span != "–" else number(value), value)


def _verdict(word: str) -> Cell:
    return Cell(word, word, tone={"better": "good", "equivalent": "good", "worse": "bad"}.get(word, "quiet"))


def _holm(row: pd.Series) -> Cell:
    """Show the corrected p, or the smallest possible one if the pairs are too few for .05."""
    least = min(1.0, row["floor"] * row["n_comparisons"])
    if row["floor"] > 0.05:
        n = row["n_pairs"]
        title = (
            f"the smallest possible p at {n} pair{'s' * (n != 1)} is {p_value(row['floor'])} before Holm's correction"
        )
        return Cell(f"floor {p_value(row['floor'])}", 1 + row["floor"], tone="quiet", title=title)
    title = f"uncorrected {p_value(row['p'])}; smallest possible after Holm {p_value(least)}"
    return Cell(p_value(row["p_holm"]), row["p_holm"], title=title)


def completeness(runs: pd.DataFrame) -> Table:
    """Return estimators × (schedule, device, axes): which runs of each cell ended how, in words and colours."""
    columns_of = ["schedule_label", "device", "axes"]
    there = runs[columns_of].drop_duplicates().itertuples(index=False, name=None)
    heads = sorted(((None if pd.isna(head[0]) else head[0], *head[1:]) for head in there), key=_none_last)
    titles = distinct(heads, _head, lambda head: _head((head[0] and quote(head[0]), *head[1:])))
    rows = []
    for (estimator, label), group in runs.groupby(["estimator", "estimator_label"], sort=True):
        cells = [Cell(str(label), str(label), estimator=str(estimator))]
        for head in heads:
            same = group["schedule_label"].isna() if head[0] is None else group["schedule_label"] == head[0]
            mask = same & (group["device"] == head[1]) & (group["axes"] == head[2])
            cells.append(_completeness_cell(group.loc[mask, "status"]))
        rows.append(cells)
    columns = [Column("Estimator", numeric=False), *(Column(titles[head], numeric=False) for head in heads)]
    return Table("How the planned runs ended", columns, rows)


Head = tuple[str | None, str, str]
"""Schedule, None for no temperature, device and other axes."""


def _none_last(head: Head) -> tuple[object, ...]:
    return head[0] is None, head[0] or "", *head[1:]


def _head(head: Head) -> str:
    return joined("no temperature" if head[0] is None else head[0], *head[1:])


def _completeness_cell(statuses: pd.Series) -> Cell:
    if statuses.empty:
        return Cell("not in the grid", None, tone="absent")
    counts = {status: int((statuses == status).sum()) for status in (*STATUSES, *sorted(set(statuses) - set(STATUSES)))}
    counts = {status: count for status, count in counts.items() if count}
    text = " · ".join(f"{count} {status}" for status, count in counts.items())
    worst = next((status for status in (FAILED, DIVERGED, "missing", INTERRUPTED, RUNNING, "waiting", SKIPPED)
                  if status in counts), FINISHED)  # fmt: skip
    return Cell(text, counts.get(FINISHED, 0), tone=worst)


def timings(runs: pd.DataFrame) -> Table | None:
    """Return medians over the finished runs of each setting; None if no time was measured."""
    names = {
        STEP_MEDIAN_S: (
            "Step, ms",
            1e3,
            2,
            "median over runs of the median step; in brackets the quartiles over runs",
        ),
        STEP_P90_S: ("Step p90, ms", 1e3, 2, "median over runs of the 90th percentile"),
        IMAGES_PER_S: ("Images/s", 1, 0, "training throughput at the median step"),
        TOTAL_S: ("Total, s", 1, 1, "training of one run"),
        PEAK_MB: ("Peak, MB", 1, 0, "resident memory of the process on a CPU, allocated memory on a GPU"),
    }
    names = {name: how for name, how in names.items() if name in runs and runs[name].notna().any()}
    if not names:
        return None
    finished = runs[runs["status"] == FINISHED]
    columns = [*_setting_columns(True), Column("n")]
    terms = {PEAK_MB: "memory"}
    columns += [
        Column(title, meaning=meaning, term=terms.get(name, "step-time"))
        for name, (title, _, _, meaning) in names.items()
    ]
    columns.append(Column("Machine", numeric=False, meaning="shared: other runs were under way, times are contended"))
    rows = []
    for key, group in finished.groupby(DESCRIPTION, sort=True, dropna=False):
        row = pd.Series(dict(zip(DESCRIPTION, key, strict=True)))
        cells = [*_setting(row, True), Cell(str(len(group)), len(group))]
        for name, (_, scale, digits, _) in names.items():
            values = group[name].dropna() * scale
            if values.empty:
                cells.append(Cell("–"))
                continue
            text = f"{values.median():,.{digits}f}"
            if name == STEP_MEDIAN_S and len(values) > 1:
                text += f" ({values.quantile(0.25):.{digits}f}–{values.quantile(0.75):.{digits}f})"
            cells.append(Cell(text, float(values.median())))
        shared = bool(group["shared_machine"].any())
        rows.append([*cells, Cell("shared" if shared else "alone", tone="warn" if shared else "")])
    return Table("Time and memory, median over the finished runs of each setting", columns, rows)


def failures(runs: pd.DataFrame, link: Callable[[Mapping[str, object]], str] = lambda run: "") -> Table | None:
    """Return every run that did not finish, with the first line of its error; None if all finished.

    ``link`` gives the address of a run, or nothing.
    """
    bad = runs[runs["status"] != FINISHED]
    if bad.empty:
        return None
    columns = [
        Column(title, numeric=title == "Seed")
        for title in ("Setting", "Device", "Seed", "Status", "First line of the error", "Run")
    ]
    rows = []
    for _, row in bad.iterrows():
        lines = str(row["error"]).splitlines()
        seed = Cell("–") if pd.isna(row["seed"]) else Cell(str(row["seed"]), int(row["seed"]))
        status = Cell(str(row["status"]), str(row["status"]), tone=str(row["status"]))
        error = Cell(
            lines[0][:500] if lines else "planned, no trace of it in the store" if row["status"] == "missing" else "–"
        )
        rows.append(
            [
                *_setting(row, True),
                seed,
                status,
                error,
                Cell(str(row["run_id"])[:8] or str(row["run_key"])[:8], link=link(row.to_dict())),
            ]
        )
    return Table("Runs that did not finish", columns, rows)
