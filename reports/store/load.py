"""From MLflow experiments to tidy frames, as `reports.load`: the only module here that knows MLflow.

The stored names are those of docs/architecture.md, "stored runs"; the frames are described in ``reports.store.frame``.
MLflow is imported inside the functions: it costs two seconds, and nothing else in ``reports`` needs it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from reports.ambient import put_aside
from reports.contract import mlflow_environment
from reports.contract.errors import ReportError
from reports.contract.settings import from_json
from reports.contract.sqlite_uri import DATABASE, sqlite_path, sqlite_uri
from reports.contract.stored_run import (
    BASKET_FILE,
    ELAPSED_S,
    EPOCH,
    FAILED,
    FINISHED,
    GRID_FILE,
    HISTORY_FILE,
    INTERRUPTED,
    KIND_RUN,
    KIND_SWEEP,
    LATENTS_FILE,
    PARAM_SOURCE,
    PLAN_FILE,
    PROVENANCE_FILE,
    RUNNING,
    SHARED_MACHINE,
    STEP,
    TAG_CHECKSUMS,
    TAG_COMMAND,
    TAG_DEVICE,
    TAG_ERROR,
    TAG_ESTIMATOR,
    TAG_ESTIMATOR_LABEL,
    TAG_KIND,
    TAG_LABEL,
    TAG_PARENT,
    TAG_QUESTION,
    TAG_RUN_KEY,
    TAG_SCHEDULE,
    TAG_SEED,
    TAG_SETTING,
    TAG_STATUS,
    TAG_SWEEP,
)
from reports.contract.text import FILE, NAME, visible, visible_json, visible_lines, without_passwords
from reports.store.artifacts import Artifacts
from reports.store.frame import (
    CORE,
    IDENTITY,
    UNTYPED,
    Runs,
    Sweep,
    history_frame,
    mark_former,
    newest,
    planned_but_missing,
    tidy,
    typed,
)
from reports.store.tracking_uri import checked_uri, reason

_FROM_MLFLOW = {"FINISHED": FINISHED, "FAILED": FAILED, "KILLED": INTERRUPTED}
_PAGE = 1000
_HUGE = 1e100
_WHEN = (EPOCH, STEP, ELAPSED_S)
DEFAULT_STORE = f"results/{DATABASE}"

__all__ = ["ReportError", "Runs", "load"]


@put_aside()
def load(
    experiments: str | Sequence[str] | None = None,
    tracking_uri: str | Path | None = None,
    *,
    former: bool = False,
    results: Path | None = None,
) -> Runs:
    """Read every run of the experiments (None: the only one there is) from the store at ``tracking_uri``.

    Of several experiments one frame is made; a configuration that was run in more than one counts once. Runs that
    their grid has no more, because grid or plugin was edited since, are left out and told in ``notes``, unless
    ``former``. ``tracking_uri`` is by default $MLFLOW_TRACKING_URI, else the store that `harness run` writes to from
    here, results/mlflow.db. Files of runs are looked for beside a SQLite store, then in the folder ``results``, then
    where the store says.

    Raises ReportError, one line, where the store does not answer or has no such experiment or no runs in it.
    """
    mlflow_environment.prepare()
    here = sqlite_uri(Path(DEFAULT_STORE).resolve())
    tracking_uri = checked_uri(str(tracking_uri or "") or os.environ.get("MLFLOW_TRACKING_URI") or here)
    database = sqlite_path(tracking_uri)
    folders = [folder for folder in (database and database.parent, results and results.absolute()) if folder]
    from google.protobuf.json_format import Error as ProtobufError  # of an answer that is not MLflow's
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        names = [experiments] if isinstance(experiments, str) else experiments
        return _load(names, tracking_uri, folders, former=former)
    except (MlflowException, ProtobufError, SQLAlchemyError, ImportError, OSError) as error:
        raise ReportError(
            f"tracking URI: expected an MLflow store, got '{without_passwords(tracking_uri)}' ({reason(error)}). "
            "Check --tracking-uri."
        ) from error


def _load(experiments: Sequence[str] | None, tracking_uri: str, folders: Sequence[Path], *, former: bool) -> Runs:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    names = [_only(client)] if experiments is None else list(dict.fromkeys(experiments))
    ids = {_experiment_id(client, name): name for name in names}
    if not ids:
        raise ReportError("experiment: expected the name of at least one, got none.")
    stored = [run for experiment_id in ids for run in _search(client, experiment_id)]
    parents = [run for run in stored if run.data.tags.get(TAG_KIND) == KIND_SWEEP]
    children = [run for run in stored if run.data.tags.get(TAG_KIND) == KIND_RUN]
    shown = ", ".join(f"'{name}'" for name in names)
    nothing = ReportError(f"experiment {shown}: expected at least one run, got none. Run the grid first.")
    if not parents and not children:
        raise nothing

    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        read = Artifacts(tracking_uri, Path(folder), folders)
        sweeps = tuple(
            sorted((_sweep(run, read) for run in parents), key=lambda sweep: (str(sweep.start), sweep.run_id))
        )
        contended = {sweep.run_id: _workers(sweep.provenance) > 1 for sweep in sweeps}
        records = newest(_record(run, contended, ids) for run in children)
        records = mark_former(records, sweeps)
        left_out = 0 if former else sum(record["former"] for record in records)
        records = [record for record in records if former or not record["former"]]
        by_id = {_id(run): run for run in children}
        known = {str(record["run_key"]) for record in records}
        absent = "waiting" if any(sweep.is_running for sweep in sweeps) else "missing"
        records += planned_but_missing((entry for sweep in sweeps for entry in sweep.plan), known, absent)
        if not records:
            raise nothing
        runs = tidy(records)
        present = [by_id[run_id] for run_id in runs["run_id"] if run_id]
        keys = dict(zip(runs["run_id"], runs["run_key"], strict=True))
        histories = {keys[_id(run)]: _history(run, read) for run in present}
        pictured = _pictured(runs, by_id)
        images = {keys[_id(run)]: read.images(run) for run in pictured}
        latents = {keys[_id(run)]: _latents(run, read) for run in pictured}
        if sweeps and not any(sweep.provenance for sweep in sweeps) and present:
            sweeps = (*sweeps[:-1], _with_provenance(sweeps[-1], read.json(present[-1], PROVENANCE_FILE, dict)))
    notes = (*_plan_notes(sweeps), *read.notes, *_notes(runs, histories), *_former_note(left_out))
    return Runs(
        experiment=visible(", ".join(names), NAME),
        runs=runs,
        history=history_frame(runs, histories),
        images={key: found for key, found in images.items() if found},
        sweeps=sweeps,
        notes=notes,
        latents={key: found for key, found in latents.items() if found},
    )


def _experiment_id(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise ReportError(_unknown(name, client))
    return str(found.experiment_id)


def _plan_notes(sweeps: Sequence[Sweep]) -> tuple[str, ...]:
    """Say it where plans cannot be read: without them nobody knows what is missing, and what is out of date."""
    n = sum(not sweep.plan for sweep in sweeps)
    if not n:
        return ()
    which = "the sweep" if len(sweeps) == 1 else f"{n} of {len(sweeps)} sweeps"
    return (
        f"The plan of {which} ({PLAN_FILE}) cannot be read. Missing runs are not known, and runs that are no longer in "
        "the grid are shown like the others.",
    )


def _former_note(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    runs, are = ("run", "is") if count == 1 else ("runs", "are")
    return (
        f"{count} stored {runs} {are} left out: the grid has them no more, because it or a plugin was edited since. "
        "With --all they are here too.",
    )


def _latents(run: Any, read: Artifacts) -> dict[str, Any]:
    """What latents.json says of each variable; nothing where it has no lists of numbers."""
    if LATENTS_FILE not in run.data.tags.get(TAG_CHECKSUMS, ""):  # older runs have none
        return {}
    found = read.json(run, LATENTS_FILE, dict)
    lists = {name: values for name, values in found.items() if isinstance(values, list) and values}
    return {name: values for name, values in lists.items() if all(_is_numeric(value) for value in values)}


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_numeric(inner) for inner in value)
    return isinstance(value, int | float) and abs(value) < _HUGE


def _search(client: Any, experiment_id: str) -> Iterable[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _names(client: Any) -> list[str]:
    return sorted(found.name for found in client.search_experiments() if found.name != "Default")


def _there(names: list[str]) -> str:
    """The names as an error lists them."""
    if not names:
        return "none yet; run a grid first"
    return ", ".join(visible(name, NAME) for name in names[:20]) + (", …" if len(names) > 20 else "")


def _only(client: Any) -> str:
    names = _names(client)
    if not names:
        raise ReportError("experiment: expected one in the store, got none. Run a grid first.")
    if len(names) != 1:
        raise ReportError(f"experiment: expected a name, as there is not just one. There is: {_there(names)}.")
    return names[0]


def _unknown(experiment: str, client: Any) -> str:
    there = _there(_names(client))
    return f"experiment: expected the name of a stored experiment, got '{experiment}'. There is: {there}."


def _id(run: Any) -> str:
    return visible(run.info.run_id, NAME)


def _record(run: Any, contended: Mapping[str, bool], experiments: Mapping[str, str]) -> dict[str, Any]:
    """One flat record of a child run: tags, typed params, last metrics. Every text is made visible here."""
    tags = {name: visible(value) for name, value in run.data.tags.items()}
    params = {visible(name, NAME): visible(value) for name, value in run.data.params.items()}
    metrics = {visible(name, NAME): _sane(float(value)) for name, value in run.data.metrics.items()}
    named = (TAG_RUN_KEY, TAG_ESTIMATOR, TAG_SCHEDULE, TAG_DEVICE, TAG_SEED)
    identity = {name: tags.get(name, params.get(name)) for name in named}
    shared = typed(tags.get(SHARED_MACHINE, params.get(SHARED_MACHINE)))
    shared = metrics.pop(SHARED_MACHINE, None) if shared is None else shared
    sweep = tags.get(TAG_SWEEP, tags.get(TAG_PARENT, ""))
    record = {name: _typed(name, value) for name, value in params.items() if "/" not in name}  # as metrics have
    record = {name: value for name, value in (record | metrics).items() if name not in (*CORE, *IDENTITY)}
    return record | {
        **identity,
        "run_key": identity["run_key"] or _id(run),
        "estimator": visible(identity["estimator"] or "unknown", NAME),
        "run_id": _id(run),
        "name": visible(run.info.run_name or "", NAME),
        "label": visible(tags.get(TAG_LABEL, ""), NAME),
        "estimator_label": visible(tags.get(TAG_ESTIMATOR_LABEL, ""), NAME),
        "status": tags.get(TAG_STATUS) or _FROM_MLFLOW.get(run.info.status, RUNNING),
        "error": visible(run.data.tags.get(TAG_ERROR, "").partition("\n")[0]),
        "sweep": sweep,
        "experiment": visible(experiments.get(str(run.info.experiment_id), ""), NAME),
        "experiment_id": visible(str(run.info.experiment_id), NAME),
        "parts": from_json(run.data.tags.get(TAG_SETTING, "")),
        "source": str(record.get(PARAM_SOURCE) or ""),
        "start": _utc(run.info.start_time),
        "end": _utc(run.info.end_time),
        "shared_machine": bool(shared) if shared is not None else contended.get(sweep, False),
    }


def _typed(name: str, value: str) -> Any:
    return typed(value) if name not in UNTYPED else None if value == "None" else value


def _sane(value: float) -> float:
    """The value of a final metric; NaN for what can be no measurement: MLflow keeps an infinity as 1.8e308."""
    return value if abs(value) < _HUGE else math.nan


def _history(run: Any, read: Artifacts) -> list[dict[str, float]]:
    """The numbers of every epoch; nothing where an epoch does not say when it was."""
    rows = [_numbers(row) for row in read.records(run, HISTORY_FILE)]
    return rows if all(all(math.isfinite(row.get(name, math.nan)) for name in _WHEN) for row in rows) else []


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What is a number that can be drawn, and no part of the run's identity; a loss may be nan or infinite."""
    shown = ((_shown(name), value) for name, value in row.items() if isinstance(value, int | float))
    return {name: value for name, value in shown if name not in IDENTITY and not _HUGE < abs(value) < math.inf}


@lru_cache(maxsize=4096)
def _shown(name: str) -> str:
    """The name of a metric, made visible once for all epochs."""
    return visible(name, NAME)


def _sweep(run: Any, read: Artifacts) -> Sweep:
    return Sweep(
        run_id=_id(run),
        command=visible(run.data.tags.get(TAG_COMMAND, "")),
        question=visible_lines(run.data.tags.get(TAG_QUESTION, "")),
        grid=visible_lines(read.text(run, GRID_FILE), FILE),
        provenance=read.json(run, PROVENANCE_FILE, dict),
        plan=[_planned(entry) for entry in read.records(run, PLAN_FILE)],
        basket=_basket(run, read),
        start=_utc(run.info.start_time),
        is_running=run.info.status == "RUNNING",
    )


def _planned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A planned run, made visible but for its setting: that is compared first, and made visible with all others."""
    return {**visible_json(entry), "setting": entry.get("setting")}


def _basket(run: Any, read: Artifacts) -> dict[str, str]:
    if BASKET_FILE not in run.data.tags.get(
        TAG_CHECKSUMS, ""
    ):  # older sweeps, and those without diagnostics, have none
        return {}
    found = read.json(run, BASKET_FILE, dict)
    return {name: label for name, label in found.items() if isinstance(label, str)}


def _with_provenance(sweep: Sweep, provenance: Mapping[str, Any]) -> Sweep:
    return Sweep(**{**vars(sweep), "provenance": provenance})


def _workers(provenance: Mapping[str, Any]) -> int:
    for holder in (provenance, *(value for value in provenance.values() if isinstance(value, dict))):
        value = typed(holder.get("workers"))
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 1


def _pictured(runs: pd.DataFrame, by_id: Mapping[str, Any]) -> list[Any]:
    """The runs whose images a report shows: the first finished seed of each setting and device."""
    finished = runs[(runs["status"] == FINISHED) & (runs["run_id"] != "")]
    return [by_id[run_id] for run_id in finished.groupby(["setting", "device"], sort=True)["run_id"].first()]


def _notes(runs: pd.DataFrame, histories: Mapping[str, list[Any]]) -> tuple[str, ...]:
    finished = runs.loc[runs["status"] == FINISHED, "run_key"]
    without = sum(not histories.get(key) for key in finished)
    if not without:
        return ()
    return (
        f"{without} of {len(finished)} finished runs have no readable {HISTORY_FILE}: they are absent from the curves.",
    )


def _utc(milliseconds: int | None) -> pd.Timestamp | None:
    """The time; None where there is none, or one that no clock can show."""
    try:
        return pd.Timestamp(milliseconds, unit="ms", tz="UTC") if milliseconds else None
    except (ValueError, OverflowError):
        return None
