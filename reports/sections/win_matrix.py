"""Who beats whom, at the same seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pandas as pd

from reports import comparison
from reports import statistics as st
from reports.comparison import Metric
from reports.page import numbers
from reports.page.blocks import Block, How, Section, Tabular, Words
from reports.page.context import Context, best_settings
from reports.page.table import Cell, Column, Table

MAX_SETTINGS = 16
Keys = Sequence[tuple[str, str]]
HOW = (
    "Row against column: the share of seeds at which the row is {better} (1.00: at every seed), ties half, and in "
    "brackets the mean difference{unit}; ● marks one whose 95 % interval excludes zero. Dark: the row wins. A "
    "pointer over a cell shows the number of pairs and Holm’s p over all pairs of the table."
)


def section(context: Context) -> Section:
    """Show the pairwise win matrix of the settings, or of the best of each estimator if there are many."""
    metric = context.primary
    levels = context.levels(metric) if metric else pd.DataFrame()
    if metric is None or (levels["n"] > 0).sum() < 2:
        text = "There are no two settings with a result, so there is nobody to win against."
        return Section("wins", "Wins", [Words(text, "empty")])
    levels = levels[levels["n"] + levels["n_bad"] > 0]
    keys = best_settings(levels, MAX_SETTINGS)
    tried = comparison.by_seed(context.compared, metric)
    matrix = st.win_matrix([tried.get(key, {}) for key in keys])
    shown = _table(context, keys, matrix, metric)
    how = HOW.format(better=metric.better, unit=f" in {metric.unit}" if metric.unit else "")
    blocks: list[Block] = [Tabular(shown, "wins", _frame(keys, matrix, metric), style="matrix heat"), How(how)]
    if len(keys) < len(levels):
        blocks.append(Words(f"{len(keys)} of {len(levels)} settings: the best of each estimator first.", "remark"))
    return Section("wins", "Wins", blocks)


def _name(key: tuple[str, str], keys: Keys) -> str:
    return f"{key[0]} · {key[1]}" if len({device for _, device in keys}) > 1 else key[0]


def _table(context: Context, keys: Keys, matrix: st.WinMatrix, metric: Metric) -> Table:
    names = [_name(key, keys) for key in keys]
    estimator = dict(zip(context.compared["setting"], context.compared["estimator"], strict=True))
    columns = [Column("Row beats column", numeric=False, term="wins")]
    columns += [Column(str(number), meaning=name) for number, name in enumerate(names, 1)]
    rows = []
    for i, name in enumerate(names):
        head = Cell(f"{i + 1}. {name}", name, estimator=str(estimator[keys[i][0]]))
        rows.append([head, *(_cell(matrix, i, j, metric) for j in range(len(names)))])
    caption = f"{metric.title}: share of seeds at which the row is {metric.better} than the column"
    return Table(caption, columns, rows)


def _cell(matrix: st.WinMatrix, i: int, j: int, metric: Metric) -> Cell:
    share, n = float(matrix.share[i, j]), int(matrix.n[i, j])
    if i == j or n == 0 or math.isnan(share):
        return Cell("·" if i == j else "–", None, tone="absent")
    mean, interval = _difference(matrix, i, j, metric)
    certain = " ●" if interval.excludes_zero else ""
    difference = "" if math.isnan(mean) else f" ({numbers.fixed(mean, metric.digits - 1, signed=True)}{certain})"
    p = float(matrix.p_holm[i, j])
    span = numbers.interval(interval.low, interval.high, metric.digits, signed=True)
    title = f"{n} pairs; Holm p {'–' if math.isnan(p) else numbers.p_value(p)}; {span}"
    return Cell(f"{share:.2f}{difference}", share, title=title, shade=share)


def _difference(matrix: st.WinMatrix, i: int, j: int, metric: Metric) -> tuple[float, st.Interval]:
    """Return the mean difference row − column and its interval, of the values as they are."""
    interval = st.Interval(float(matrix.low[i, j]), float(matrix.high[i, j]))
    return metric.sign * float(matrix.mean[i, j]), metric.turned(interval)


def _frame(keys: Keys, matrix: st.WinMatrix, metric: Metric) -> pd.DataFrame:
    rows = []
    for i, j in itertools.permutations(range(len(keys)), 2):
        mean, interval = _difference(matrix, i, j, metric)
        rows.append(
            {
                "setting": keys[i][0],
                "device": keys[i][1],
                "versus": keys[j][0],
                "versus_device": keys[j][1],
                "n": int(matrix.n[i, j]),
                "share": matrix.share[i, j],
                "mean": mean,
                "low": interval.low,
                "high": interval.high,
                "p_holm": matrix.p_holm[i, j],
            }
        )
    return pd.DataFrame(rows)
