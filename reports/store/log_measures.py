"""What the runs of logs are compared by: what the caller states, what columns say, and the measures of the VAE."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from reports.contract import stored_run as names
from reports.contract.errors import ReportError
from reports.contract.measures import HIGHER, LOWER, VAE_MEASURES, Better, DeclaredMeasure
from reports.store.log_rows import LOGGED, OF_A_METRIC, Rows, stored_name

OF_VAE = {measure.metric: measure for measure in VAE_MEASURES}
_LOSSES = (names.TRAIN_LOSS, names.VAL_LOSS, names.TEST_LOSS)


class Measure(NamedTuple):
    """The measure that ranks, as the caller states it; what is None is taken from the logs."""

    metric: str | None = None
    better: Better | None = None
    unit: str | None = None


def task_of_all(rows: Rows, stated: Measure, name: str) -> str:
    """Return the task of runs that name none: the VAE where its measures are compared, else ``name``."""
    there = set(rows.measured["metric"])
    first = stored_name(stated.metric) if stated.metric else next(iter(_by_metric(rows)), None)
    is_vae = first in OF_VAE or (first is None and there & set(OF_VAE))
    return names.CATEGORICAL_VAE if is_vae else name


def measures_by_task(rows: Rows, tasks: pd.Series, stated: Measure) -> dict[str, tuple[DeclaredMeasure, ...]]:
    """Return the measures of each task, the one that ranks first. ``tasks`` has the task of every row.

    Raises ReportError if none is known, if no run of a task has one, or if a direction is missing or contradicts.
    """
    columns = _by_metric(rows)
    first = _first(rows, stated, columns)
    found = {}
    for task, part in rows.measured.groupby(tasks, sort=True):
        there = list(dict.fromkeys(part["metric"]))
        usual = OF_VAE if task == names.CATEGORICAL_VAE else {}
        wanted = dict.fromkeys([*([first] if first else []), *columns, *usual])
        declared = tuple(_declared(name, there, stated if name == first else Measure(), columns.get(name, {}), rows)
                         for name in wanted if name in there)  # fmt: skip
        if not declared:
            what = f"of {_shown(first or 'a measure')}" + (
                f" in the runs of the task '{task}'" if tasks.nunique() > 1 else ""
            )
            raise ReportError(
                f"{rows.table.name}: expected values {what}, got none. There is: {_list(there)}. Name the measure with "
                "--metric and its direction with --better, or in Python with measure and better."
            )
        found[str(task)] = declared
    return found


def _first(rows: Rows, stated: Measure, columns: Mapping[str, object]) -> str | None:
    """Return the stored name of the measure that ranks, if it is stated or is the only metric."""
    there = sorted(set(rows.measured["metric"]))
    if stated.metric is None:
        only = there[0] if len(there) == 1 and not columns else None
        if (stated.better or stated.unit) and only is None:
            raise ReportError(f"better and unit: expected a measure with them, got none. There is: {_list(there)}.")
        return only
    name = stored_name(stated.metric)
    if name not in there:
        near = difflib.get_close_matches(name, there, 1)
        hint = f" Did you mean '{_shown(near[0])}'?" if near else ""
        raise ReportError(f"measure: expected one of {_list(there)}; got '{stated.metric}'.{hint}")
    return name


def _list(there: list[str]) -> str:
    return ", ".join(map(_shown, there[:20])) + (", …" if len(there) > 20 else "")


def _shown(metric: str) -> str:
    return metric.removeprefix(LOGGED)


def _by_metric(rows: Rows) -> dict[str, dict[str, str]]:
    """Return what the columns say of each metric that has a direction: better, unit, band.

    Raises ReportError where they say two things of one metric.
    """
    frame, found = rows.measured, dict[str, dict[str, str]]()
    for column in OF_A_METRIC:
        given = frame[frame[column] != ""]
        first = given.groupby("metric")[column].transform("first")
        if (mixed := given[column] != first).any():
            row = int(given.index[np.flatnonzero(mixed)[0]])
            whose = _shown(str(given["metric"].loc[row]))
            raise ReportError(
                f"{rows.table.at(row)}: {column}: expected one for all rows of {whose}, got "
                f"'{given[column].loc[row]!s}' after '{first.loc[row]!s}'."
            )
        for metric, text in given.drop_duplicates("metric").set_index("metric")[column].items():
            found.setdefault(str(metric), {})[column] = str(text)
    for metric, said in found.items():
        if said.get("better", LOWER) not in (LOWER, HIGHER):
            row = int(frame.index[(frame["metric"] == metric) & (frame["better"] != "")][0])
            raise ReportError(f"{rows.table.at(row)}: better: expected lower or higher, got '{said['better']}'.")
    return {metric: said for metric, said in found.items() if "better" in said}


def _declared(metric: str, there: list[str], stated: Measure, said: Mapping[str, str], rows: Rows) -> DeclaredMeasure:
    """Return a measure with what is stated, what columns say, and what is known of its name, in this order."""
    known = OF_VAE.get(metric)
    usual = known.better if known else LOWER if metric in _LOSSES else None
    better = stated.better or said.get("better") or usual
    if stated.better and said.get("better", stated.better) != stated.better:
        raise ReportError(f"better: expected {said['better']}, as {rows.table.name} says, got {stated.better}.")
    if better not in (LOWER, HIGHER):
        raise ReportError(
            f"better: expected lower or higher, got {better or 'nothing'}: which direction of {_shown(metric)} is "
            "better? Give --better, or a column of that name."
        )
    kind, _, name = metric.partition("/")
    on_validation = f"{names.VAL_PREFIX}{name}"
    usual_validation = known.validation if known else on_validation if kind == "test" else metric
    base = known or DeclaredMeasure(name, name, "", LOWER, None, metric, metric)
    return replace(
        base,
        better=HIGHER if better == HIGHER else LOWER,
        unit=said.get("unit", base.unit) if stated.unit is None else stated.unit,
        band=_band(rows, metric, said["band"]) if "band" in said else base.band,
        validation=usual_validation if usual_validation in there else metric,
    )


def _band(rows: Rows, metric: str, text: str) -> float:
    try:
        band = float(text)
    except ValueError:
        band = 0.0
    if not 0 < band < 1e100:
        row = int(rows.measured.index[(rows.measured["metric"] == metric) & (rows.measured["band"] != "")][0])
        raise ReportError(f"{rows.table.at(row)}: band: expected a number above 0, got '{text}'.")
    return band
