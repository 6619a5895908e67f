"""The rows of logs, checked: one value of one metric of one run each. docs/runs-of-others.md describes the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from reports.contract import stored_run as names
from reports.contract.errors import ReportError
from reports.contract.text import NAME_LENGTH, visible
from reports.store.csv_file import TextTable
from reports.store.frame import BARE_METRICS, CORE, STATUSES

REQUIRED = ("estimator", "seed", "metric", "value")
POINT = (names.EPOCH, names.STEP)
"""When a value was measured; at least one of these columns is needed. A value of the whole run has neither."""
OF_A_RUN = ("estimator_label", "schedule", "device", "task")
OUTCOME = ("status", "error", "shared_machine")
OF_A_METRIC = ("better", "unit", "band")
NOT_SETTINGS = (*REQUIRED, *POINT, names.ELAPSED_S, *OF_A_RUN, *OUTCOME, *OF_A_METRIC)
LOGGED = "metric/"
"""What stands before the name of a metric that has no slash of its own: in a report only metrics have one."""
_LAST_SEED = 2**32 - 1
_RESERVED = {*CORE, *BARE_METRICS, "parts", "version", "unreadable", "source"}


@dataclass(frozen=True)
class Rows:
    """Checked rows, in ``frame``: texts, but for numbers in value, epoch, step, elapsed_s and seed, NaN for nothing.

    The texts of estimators, schedules, devices, tasks and settings are as written, those of others made visible.

    ``run`` numbers the runs in the order of their first rows. ``settings`` are the columns that reports do not know
    otherwise.
    """

    table: TextTable
    frame: pd.DataFrame = field(repr=False)
    settings: tuple[str, ...]

    @property
    def measured(self) -> pd.DataFrame:
        """The rows with a value; a run without any has one row that has none."""
        return self.frame[self.frame["metric"] != ""]


def checked(table: TextTable) -> Rows:
    """Return the rows of a table. Raises ReportError at the first that is not as docs/runs-of-others.md says."""
    if names.PARAM_TAU not in table.frame:
        table = replace(table, frame=table.frame.rename(columns={names.TAU: names.PARAM_TAU}))
    _check_columns(table)
    settings = tuple(str(name) for name in table.frame if name not in NOT_SETTINGS)
    frame = table.frame.copy()
    for name in NOT_SETTINGS:
        if name not in frame:
            frame[name] = ""
    for name in ("metric", *OUTCOME, *OF_A_METRIC):  # what tells runs apart stays as it is until it is compared
        frame[name] = frame[name].map({text: visible(text, NAME_LENGTH) for text in frame[name].unique()})
    _check_texts(table, frame)
    for name in ("seed", "value", *POINT, names.ELAPSED_S):
        frame[name] = _numbers(table, name, frame[name])
    _check_numbers(table, frame)
    frame["metric"] = frame["metric"].map({name: stored_name(name) for name in frame["metric"].unique()})
    frame["device"] = frame["device"].replace("", "unknown")
    identity = ["estimator", *OF_A_RUN, "seed", *settings]
    frame["run"] = frame.groupby(identity, sort=False).ngroup()
    _check_runs(table, frame)
    return Rows(table, frame, settings)


def stored_name(metric: str) -> str:
    """Return the name of a metric in a report: ``accuracy`` is ``metric/accuracy``."""
    return metric if not metric or "/" in metric or metric in BARE_METRICS else f"{LOGGED}{metric}"


def _check_columns(table: TextTable) -> None:
    there = [str(name) for name in table.frame]
    missing = [name for name in REQUIRED if name not in there]
    if not any(name in there for name in POINT):
        missing.append(" or ".join(POINT))
    if missing:
        raise ReportError(
            f"{table.name}: expected the columns {', '.join(REQUIRED)} and {' or '.join(POINT)}, got none named "
            f"{', '.join(missing)}. There is: {', '.join(there[:20])}{', …' if len(there) > 20 else ''}."
        )
    for name in there:
        if name not in NOT_SETTINGS and (name in _RESERVED or "/" in name):
            why = "a slash is for metrics" if "/" in name else "reports have a column of that name"
            raise ReportError(f"{table.name}: expected another name than '{name}' of a setting: {why}. Rename it.")


def _check_texts(table: TextTable, frame: pd.DataFrame) -> None:
    _refuse(table, frame["estimator"] == "", "estimator: expected a name, got an empty text.")
    bad = ~frame["status"].isin(("", *STATUSES))
    _refuse(table, bad, f"status: expected one of {', '.join(STATUSES)}, or nothing, got '{{}}'.", frame["status"])
    frame["status"] = frame["status"].replace("", names.FINISHED)
    bad = ~frame["shared_machine"].str.lower().isin(("", "true", "false"))
    _refuse(table, bad, "shared_machine: expected true, false or nothing, got '{}'.", frame["shared_machine"])
    without = (frame["metric"] == "") & ((frame["value"] != "") | (frame["status"] == names.FINISHED))
    _refuse(table, without, "metric: expected a name, got an empty text. Only a run that did not finish may have none.")
    unnumbered = (frame["metric"] != "") & (frame["value"] == "")
    _refuse(table, unnumbered, "value: expected a finite number, got an empty text. Leave the row out.")


def _numbers(table: TextTable, name: str, texts: pd.Series) -> pd.Series:
    """Return the numbers of a column; NaN for an empty text."""
    there = texts != ""
    found = pd.Series(np.nan, index=texts.index)
    try:
        found[there] = np.array([_number(text) for text in texts[there]], dtype=float)
    except ValueError:
        bad = there & ~texts.map(_is_number)
        _refuse(table, bad, f"{name}: expected a finite number, got '{{}}'.", texts)
    endless = there & ~np.isfinite(found)
    hint = " Leave the row out; a run that diverged says so in a column status." if name == "value" else ""
    _refuse(table, endless, f"{name}: expected a finite number, got '{{}}'.{hint}", texts)
    return found


def _number(text: str) -> float:
    if "_" in text or not text.isascii():  # Python's own notation
        raise ValueError
    return float(text)


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _check_numbers(table: TextTable, frame: pd.DataFrame) -> None:
    seed = frame["seed"]
    rule = f"seed: expected a whole number from 0 to {_LAST_SEED}, got {{}}."
    _refuse(table, ~(seed.between(0, _LAST_SEED) & (seed % 1 == 0)), rule, table.frame["seed"].replace("", "nothing"))
    for name in (*POINT, names.ELAPSED_S):
        _refuse(table, frame[name] < 0, f"{name}: expected a number of at least 0, got {{}}.", frame[name])
    if all(name in table.frame for name in POINT):
        half = frame["epoch"].isna() != frame["step"].isna()
        _refuse(table, half, "epoch and step: expected both, or neither for a value of the whole run, got one.")


def _check_runs(table: TextTable, frame: pd.DataFrame) -> None:
    """Refuse runs with two outcomes, and two values of one metric at one time."""
    for name in OUTCOME:
        first = frame.groupby("run")[name].transform("first")
        rule = f"{name}: expected one for all rows of a run, got '{{}}' after another one."
        _refuse(table, frame[name] != first, rule, frame[name])
    key = ["run", "metric", *POINT]
    repeated = frame.duplicated(key)
    if repeated.any():
        second = int(np.flatnonzero(repeated)[0])
        group = frame.groupby(key, dropna=False).ngroup()
        earlier = int(np.flatnonzero(group == group.iloc[second])[0])
        what = frame["metric"].iloc[second].removeprefix(LOGGED) or "a run without numbers"
        raise ReportError(
            f"{table.at(second)}: expected one value of {what} of a run at a time, got a second one after that of "
            f"{table.at(earlier)}. Runs that differ need another seed or a column that says what differs."
        )


def _refuse(table: TextTable, bad: pd.Series, rule: str, got: Sequence[object] | pd.Series = ()) -> None:
    """Raise ReportError for the first row that is bad; ``{}`` in the rule stands for what it has."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = visible(str(got.iloc[row]), 80) if isinstance(got, pd.Series) else ""
        raise ReportError(f"{table.at(row)}: {rule.format(value)}")
