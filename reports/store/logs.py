"""Logs that somebody else made as tidy frames: `reports.from_csv` and `reports.from_frame`.

Each row is one value of one metric of one run. docs/runs-of-others.md describes the columns.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports.contract import stored_run as names
from reports.contract.measures import Better, to_json
from reports.contract.settings import Setting
from reports.contract.text import NAME_LENGTH, visible
from reports.process_settings import default_settings
from reports.store.csv_file import TextTable, read_csv, table_of
from reports.store.frame import BARE_METRICS, UNTYPED, Runs, Sweep, history_frame, tidy, typed
from reports.store.log_measures import Measure, measures_by_task, task_of_all
from reports.store.log_rows import OF_A_RUN, POINT, Rows, checked

_NAMED = ("estimator.", "schedule.")
"""Parameters that the label of an estimator or of a schedule may name."""


@default_settings()
def from_csv(
    path: str | Path, *, measure: str | None = None, better: Better | None = None, unit: str | None = None
) -> Runs:
    """Read the runs of a CSV file with a row for each value. `from_frame` has the arguments.

    Raises ReportError, one line with the line of the file, if it is not such a file.
    """
    path = Path(path)
    table = read_csv(path)
    name = visible(path.stem, NAME_LENGTH) or "logs"
    source = {"read from": visible(path.name, NAME_LENGTH), "SHA-256": hashlib.sha256(path.read_bytes()).hexdigest()}
    given = {"--metric": measure, "--better": better, "--unit": unit}
    words = [path.name, *(word for option, value in given.items() if value for word in (option, value))]
    return _runs(table, name, Measure(measure, better, unit), source, f"harness report --from-csv {shlex.join(words)}")


@default_settings()
def from_frame(
    frame: pd.DataFrame,
    *,
    measure: str | None = None,
    better: Better | None = None,
    unit: str | None = None,
    name: str = "logs",
) -> Runs:
    """Return the runs of a frame with a row for each value: estimator, seed, epoch or step, metric, value, settings.

    ``measure`` is the metric that ranks the settings, and ``better``, lower or higher, its direction. Both may be left
    out where the frame says it. ``unit`` is that of the measure. Reports call the runs ``name``.

    Raises ReportError, one line with the row, if a value is not as docs/runs-of-others.md says.
    """
    source = {"read from": "a frame"}
    return _runs(table_of(frame, "frame"), name, Measure(measure, better, unit), source, "reports.from_frame(…)")


def _runs(table: TextTable, name: str, stated: Measure, source: Mapping[str, str], command: str) -> Runs:
    rows = checked(table)
    task = task_of_all(rows, stated, name)
    measures = measures_by_task(rows, rows.frame["task"].replace("", task), stated)
    first = rows.frame.drop_duplicates("run").assign(task=lambda runs: runs["task"].replace("", task))
    axes, finals = _axes(rows, first), _finals(rows)
    timed = _has_times(rows)
    records = [
        _record(run, axes[run["run"]], finals.get(run["run"], {}), rows.settings, name)
        | {"measures": to_json(measures[run["task"]]) if run["task"] in measures else ""}
        | {"shared_machine": timed and run["shared_machine"].lower() != "false"}
        for run in first.to_dict("records")
    ]
    runs = tidy(records)
    keys = {run: record["run_key"] for run, record in zip(first["run"], records, strict=True)}
    histories = {keys[run]: found for run, found in _histories(rows).items()}
    sweep = Sweep("", command=visible(command), provenance=source)
    return Runs(
        name, runs, history_frame(runs, histories), sweeps=(sweep,), notes=_notes(rows, source),
        epochs_known=bool(rows.frame["epoch"].notna().any()),
    )  # fmt: skip


def _has_times(rows: Rows) -> bool:
    return bool(
        rows.frame[names.ELAPSED_S].notna().any() or rows.frame["metric"].str.startswith(names.TIME_PREFIX).any()
    )


def _notes(rows: Rows, source: Mapping[str, str]) -> tuple[str, ...]:
    n, what = rows.frame["run"].max() + 1, source["read from"]
    notes = [
        f"The {n} runs were read from {what}. Runs that are not in it are not counted as missing, and whether equal "
        "seeds mean equal initial weights and batches, which makes pairs worth more, is not known."
    ]
    if rows.frame["step"].isna().all() and rows.frame["epoch"].notna().any():
        notes.append(f"Training steps are epochs here: {what} has no column step.")
    return tuple(notes)


def _axes(rows: Rows, runs: pd.DataFrame) -> dict[int, tuple[tuple[str, str], ...]]:
    """Return the settings of each run that differ between runs of one estimator, schedule, device and task.

    Settings that differ between estimators belong to it too, but for the parameters of estimators and schedules.
    """
    settings = [name for name in rows.settings if not name.startswith(names.PARAM_TASK_PREFIX)]
    by, of_task = runs.groupby(["estimator", *OF_A_RUN]), runs.groupby("task")
    varying = [name for name in settings if (by[name].nunique() > 1).any()
               or (not name.startswith(_NAMED) and (of_task[name].nunique() > 1).any())]  # fmt: skip
    short = {name: _short(name) for name in varying}
    shown = {name: text if list(short.values()).count(text) == 1 else name for name, text in short.items()}
    return {
        int(run["run"]): tuple((shown[name], run[name]) for name in varying if run[name] != "")
        for run in runs[["run", *varying]].to_dict("records")
    }


def _short(name: str) -> str:
    """Return the name of a setting in the name of a run: ``training.lr`` is ``lr``, as in a grid."""
    special = {names.PARAM_DATA: "data", "evaluation.batch_size": "evaluation_batch_size"}
    return special.get(name, name.rpartition(".")[2] or name)


def _record(
    run: Mapping[Any, Any], axes: tuple[tuple[str, str], ...], finals: Mapping[str, float],
    settings: tuple[str, ...], experiment: str,
) -> dict[str, Any]:  # fmt: skip
    """Return the flat record of a run, as `reports.store.records.to_record` does of a stored one."""
    identity = [run[name] for name in ("estimator", *OF_A_RUN, "seed", *settings)]
    key = hashlib.sha256(json.dumps([*settings, *identity]).encode()).hexdigest()[:16]
    setting = Setting(run["estimator_label"] or run["estimator"], run["schedule"] or None, axes)
    shown = {name: visible(run[name], NAME_LENGTH) for name in ("estimator", "schedule", "device", "task", *settings)}
    params = {name: shown[name] if name in UNTYPED else typed(shown[name]) for name in settings if shown[name]}
    label = visible(setting.text, NAME_LENGTH)
    return params | dict(finals) | {
        "run_id": "", "run_key": key, "label": label, "name": f"{label} · seed {run['seed']:.0f}",
        "estimator": shown["estimator"], "estimator_label": visible(setting.estimator, NAME_LENGTH),
        "schedule": shown["schedule"], "device": shown["device"], "seed": int(run["seed"]), "status": run["status"],
        "error": run["error"], "task": shown["task"], "parts": setting, "sweep": "", "experiment": experiment,
        "experiment_id": "", "former": False, "start": None, "end": None,
    }  # fmt: skip


def _finals(rows: Rows) -> dict[int, dict[str, float]]:
    """Return the last value of each metric of each run; one of the whole run comes last."""
    measured = rows.measured
    measured = measured[~measured["metric"].isin(set(BARE_METRICS) - {names.COMPILED})].sort_values(
        [*POINT], kind="stable", na_position="last"
    )
    last = measured.drop_duplicates(["run", "metric"], keep="last")
    found: dict[int, dict[str, float]] = {}
    for run, metric, value in last[["run", "metric", "value"]].itertuples(index=False, name=None):
        found.setdefault(run, {})[metric] = value
    return found


def _histories(rows: Rows) -> dict[int, list[dict[str, float]]]:
    """Return the epochs of each run. Without epochs, the steps of all runs are counted in their place."""
    measured = rows.measured
    measured = measured[measured[list(POINT)].notna().any(axis=1)]
    if measured.empty:
        return {}
    epoch, step = measured["epoch"], measured["step"]
    if epoch.isna().all():
        epoch = step.rank(method="dense")
    measured = measured.assign(epoch=epoch, step=step if step.notna().any() else epoch)
    at = ["run", *POINT]
    table = measured.set_index([*at, "metric"])["value"].unstack("metric")
    table.insert(0, names.ELAPSED_S, measured.groupby(at)[names.ELAPSED_S].max())
    table = table.reset_index()
    whole = [name for name in POINT if (table[name] % 1 == 0).all()]
    found: dict[int, list[dict[str, float]]] = {}
    for row in table.astype(dict.fromkeys(whole, "int64")).to_dict("records"):
        found.setdefault(row.pop("run"), []).append({str(name): value for name, value in row.items()})
    return found
