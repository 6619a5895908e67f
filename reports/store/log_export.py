"""Runs as a table with a row for each value, which `reports.from_csv` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.contract import stored_run as names
from reports.contract.atomic_files import write_bytes_atomically
from reports.contract.spreadsheet import no_formula
from reports.process_settings import default_settings
from reports.store.frame import ABSENT, BARE_METRICS, CORE, IDENTITY, Runs
from reports.store.log_rows import OF_A_METRIC, OUTCOME, POINT
from reports.store.setting_names import is_absent

_RUN = ("estimator", "estimator_label", "schedule", "device", "seed", "task", *OUTCOME)
_WHEN = (*POINT, names.ELAPSED_S)


@default_settings()
def to_csv(runs: Runs, path: str | Path) -> Path:
    """Write all runs with their settings, epochs and final metrics as a CSV that `from_csv` reads; return its path.

    What cannot be written as a number is left out: values that are not finite, pictures and the latents' own files.
    The same runs give the same bytes. Raises OSError where it cannot write.
    """
    frame = to_frame(runs)
    texts = frame.select_dtypes(["object", "string"]).columns
    safe = frame.assign(**{str(name): frame[name].map(no_formula) for name in texts})
    content = safe.rename(columns=lambda name: str(no_formula(name))).to_csv(index=False, lineterminator="\n")
    write_bytes_atomically(Path(path), content.encode())
    return Path(path)


def to_frame(runs: Runs) -> pd.DataFrame:
    """Return a row for each value of each run, the runs in the order of `Runs.runs`."""
    identity = _identity(runs.runs)
    values = pd.concat([_final_values(runs), _epoch_values(runs)], ignore_index=True)
    values = values[np.isfinite(values["value"].astype(float))]
    without = identity.loc[~identity["run_key"].isin(values["run_key"]), ["run_key"]]
    values = pd.concat([values, without.assign(metric="")], ignore_index=True)
    order = pd.Series(range(len(identity)), index=identity["run_key"])
    values = values.assign(order=values["run_key"].map(order)).sort_values("order", kind="stable")
    found = values.drop(columns="order").merge(identity, on="run_key", how="left")
    settings = [name for name in identity if name not in (*_RUN, "run_key")]
    return found[[*_RUN[:3], "seed", *_WHEN, "metric", "value", *OF_A_METRIC,
                  *(name for name in _RUN[3:] if name != "seed"), *settings]]  # fmt: skip


def _identity(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what tells the runs apart, as texts. A run of which only the plan is known has the settings of another."""
    settings = [str(name) for name in runs if name not in CORE and "/" not in str(name)]
    settings = [name for name in settings if name not in BARE_METRICS and runs[name].notna().any()]
    known = runs[~runs["status"].isin(ABSENT)].drop_duplicates(["setting", "device", "task_label"])
    of_setting = known.set_index(["setting", "device", "task_label"])[settings].to_dict("index")
    rows = []
    for run in runs.to_dict("records"):
        other = of_setting.get((run["setting"], run["device"], run["task_label"]), {})
        own = other if run["status"] in ABSENT else run
        rows.append({"run_key": run["run_key"], **{name: _text(run[name]) for name in _RUN},
                     "schedule": _text(run["schedule_label"]),
                     **{name: _text(own.get(name)) for name in settings}})  # fmt: skip
    return pd.DataFrame(rows)


def _text(value: Any) -> str:
    if is_absent(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _final_values(runs: Runs) -> pd.DataFrame:
    """Return the values of whole runs: those that are not the last of an epoch. A measure says what it is."""
    last = runs.history.groupby("run_key").last() if len(runs.history) else pd.DataFrame()
    rows = [row for run in runs.runs.to_dict("records") for row in _final_values_of(runs, run, last)]
    return pd.DataFrame(rows, columns=["run_key", "metric", "value", *OF_A_METRIC])


def _final_values_of(runs: Runs, run: dict[Any, Any], last: pd.DataFrame) -> Iterator[dict[str, Any]]:
    measures = {one.metric: one for one in runs.measures[run["task_label"]]}
    others = sorted(str(name) for name in run if "/" in str(name) or name == names.COMPILED)
    for name in dict.fromkeys([*measures, *others]):
        value = run.get(name)
        if is_absent(value) or name == names.TEST_GAP:
            continue
        measure = measures.get(name)
        ended = last[name].get(run["run_key"]) if name in last else None
        if measure is None and ended == value:
            continue
        said = {each: getattr(measure, each) for each in OF_A_METRIC} if measure else {}
        yield {"run_key": run["run_key"], "metric": name, "value": value, **said}


def _epoch_values(runs: Runs) -> pd.DataFrame:
    """Return the values of epochs."""
    metrics = [name for name in runs.history if name not in (*IDENTITY, *_WHEN)]
    return runs.history.melt(["run_key", *_WHEN], metrics, "metric", "value")
