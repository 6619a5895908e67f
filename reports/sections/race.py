"""How a sweep that stops when its answer is known came to its end: a section of such sweeps alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison import Metric
from reports.page import numbers
from reports.page.blocks import Block, How, Section, Tabular, Words
from reports.page.context import Context
from reports.page.table import Cell, Column, Table
from reports.store.frame import WORST

MOST_SEEDS = 1000
HOW = (
    "Settings ran seed by seed. One left as soon as it was certainly worse than another: an interval of the paired "
    "difference that holds at all looks together did not contain 0. At most {most:g} % of such sweeps drop the best "
    "or end with a false statement, if seeds are independent and differences nearly normal (docs/statistics.md). The "
    "other intervals of this report are those of one look: after such a sweep they are too narrow."
)
STATES = {
    "best": "Decided after {n} seeds: {left} is best.",
    "equivalent": "Decided after {n} seeds: within the band of {band} of the best are {left}.",
    "within band": "Decided after {n} seeds: certainly within the band of {band} of the best is {near}.",
    "undecided": "Not decided after {n} seeds: the best is among {left}.",
    "open": "Not decided yet, after {n} seeds: the best is among {left}.",
}


def section(context: Context) -> Section:
    """Show the statement that the sweep ended with, and when and against whom each setting left."""
    metric, until = context.primary, until_of(context)
    if metric is None or until is None:
        return Section("race", "When it was decided", [Words("No run has finished yet.", "empty")])
    settings, values = _values(context.frame, metric)
    band = metric.band or 0.0 if until["band"] is None else until["band"]
    found = _race(values, {**until, "band": band})
    if found is None:
        few = f"The first {until['at_least']} seeds of at least two settings are not complete yet."
        return Section("race", "When it was decided", [Words(few, "empty")])
    left, near = (", ".join(settings[i] for i in chosen) for chosen in (found.alive, found.near))
    shown = f"{numbers.band(band)} {metric.unit}".strip()
    blocks: list[Block] = [Words(STATES[found.state].format(n=found.n_seeds, left=left, near=near, band=shown))]
    table, frame = _table(context.frame, settings, found, metric)
    blocks.append(Tabular(table, "race", frame))
    return Section("race", "When it was decided", [*blocks, How(HOW.format(most=5))])


def until_of(context: Context) -> Mapping[str, Any] | None:
    """Return what the last sweep states of its end, if it is one that stops; None for others and for nonsense."""
    for sweep in reversed(context.runs.sweeps):
        until = sweep.growth.get("until")
        if isinstance(until, Mapping) and _is_sane(until):
            return until
    return None


def _is_sane(until: Mapping[str, Any]) -> bool:
    first, last, band = until.get("at_least"), until.get("at_most"), until.get("band")
    if not (isinstance(first, int) and isinstance(last, int) and 2 <= first <= last <= MOST_SEEDS):
        return False
    fine = band is None or (isinstance(band, int | float) and 0 <= band < math.inf)
    return fine and until.get("within") in ("all", "any")


def _values(runs: pd.DataFrame, metric: Metric) -> tuple[list[str], np.ndarray]:
    """Return settings, and their values by seed in the order of seeds: lower is better, ``inf`` failed, NaN not run."""
    tried = runs[runs["seed"].notna()]
    seeds = sorted({int(seed) for seed in tried["seed"]})
    settings = list(dict.fromkeys(tried.sort_values("setting", kind="stable")["setting"]))
    values = np.full((len(settings), len(seeds)), math.nan)
    known = tried[metric.name] if metric.name in tried else pd.Series(math.nan, index=tried.index)
    for setting, seed, status, value in zip(tried["setting"], tried["seed"], tried["status"], known, strict=True):
        place = settings.index(setting), seeds.index(int(seed))
        values[place] = math.inf if status in WORST else metric.sign * float(value)
    return settings, values


def _race(values: np.ndarray, until: Mapping[str, Any]) -> st.Race | None:
    """Return the race after the last seed that every setting in it has; None before the first look.

    A sweep that runs, or was stopped, may have a seed of some settings only.
    """
    n = until["at_least"]
    if len(values) < 2 or values.shape[1] < n or np.isnan(values[:, :n]).any():
        return None
    looks = {name: until[name] for name in ("band", "at_least", "at_most", "within")}
    found = st.race(values[:, :n], **looks)
    while not found.ended and n < values.shape[1] and not np.isnan(values[list(found.alive), n]).any():
        n += 1
        found = st.race(values[:, :n], **looks)
    return found


def _table(runs: pd.DataFrame, settings: list[str], found: st.Race, metric: Metric) -> tuple[Table, pd.DataFrame]:
    estimator = runs.drop_duplicates("setting").set_index("setting")["estimator"]
    columns = [
        Column("Setting", numeric=False, meaning="in the order in which they were left"),
        Column("Seeds", meaning="that it took part in"),
        Column("Left for", numeric=False, meaning="the setting that it was certainly worse than"),
        Column("Difference", meaning="to that setting, an interval that holds at all looks together"),
        Column("From the best", meaning="at most, an upper bound; all of them hold together"),
    ]
    gone = {one.setting: one for one in found.dropped}
    order = sorted(range(len(settings)), key=lambda i: (-(gone[i].n_seeds if i in gone else math.inf), found.excess[i]))
    cells, rows = [], []
    for i in order:
        one = gone.get(i)
        against = settings[one.against] if one else ""
        interval = metric.turned(one.interval) if one and not one.failed else st.UNKNOWN
        seeds, excess = one.n_seeds if one else found.n_seeds, found.excess[i]
        rows.append({"setting": settings[i], "seeds": seeds, "against": against, "low": interval.low,
                     "high": interval.high, "excess": excess})  # fmt: skip
        cells.append([
            Cell(settings[i], settings[i], estimator=str(estimator[settings[i]])),
            Cell(str(seeds), seeds),
            Cell("a run failed" if one and one.failed else against or "–", against),
            Cell(numbers.interval(interval.low, interval.high, metric.digits, signed=True)),
            Cell(numbers.fixed(excess, metric.digits), numbers.sortable(excess)),
        ])  # fmt: skip
    return Table(f"The race, {metric.axis}, {metric.better} is better", columns, cells), pd.DataFrame(rows)
