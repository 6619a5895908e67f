"""MLflow experiments as tidy frames: `reports.load`.

The names in the store are those of ``reports.contract.stored_run``; the frames are described in
``reports.store.frame``. MLflow is imported inside the functions: that takes two seconds, and nothing else in
``reports`` needs it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports.contract import mlflow_environment
from reports.contract.errors import ReportError
from reports.contract.sqlite_uri import DATABASE, sqlite_path, sqlite_uri
from reports.contract.stored_run import FINISHED, HISTORY_FILE, KIND_RUN, KIND_SWEEP, TAG_KIND
from reports.contract.text import NAME_LENGTH, first_line, visible, without_passwords
from reports.process_settings import default_settings
from reports.store.artifacts import Artifacts
from reports.store.experiments import all_runs, find_experiments
from reports.store.frame import Runs, history_frame, mark_outdated, newest, planned_but_missing, tidy
from reports.store.records import read_history, read_latents, run_id_of, to_record
from reports.store.sweeps import plan_notes, read_sweep, shares_machine, with_provenance
from reports.store.tasks import changed_measures, unreadable_notes
from reports.store.tracking_uri import LONGEST_REASON, checked_uri
from reports.store.tuning import Tuning, by_role, read_space

DEFAULT_STORE = f"results/{DATABASE}"

__all__ = ["ReportError", "Runs", "load"]


@default_settings()
def load(
    experiments: str | Sequence[str] | None = None,
    tracking_uri: str | Path | None = None,
    *,
    former: bool = False,
    results: Path | None = None,
) -> Runs:
    """Read every run of the experiments (None: the only one there is) from the store at ``tracking_uri``.

    Several experiments make one frame; a configuration that was run in more than one counts once. Runs that are no
    longer in their grid, because the grid or a plug-in has changed, are left out and counted in ``notes``, unless
    ``former``. ``tracking_uri`` is by default $MLFLOW_TRACKING_URI, else the store that `harness run` writes to in
    the current folder, results/mlflow.db. Files of runs are looked for beside a SQLite store, then in the folder
    ``results``, then where the store says.

    Raises ReportError, one line, if the store does not answer, has no such experiment, or no runs in it.
    """
    mlflow_environment.prepare()
    here = sqlite_uri(Path(DEFAULT_STORE).resolve())
    tracking_uri = checked_uri(str(tracking_uri or "") or os.environ.get("MLFLOW_TRACKING_URI") or here)
    database = sqlite_path(tracking_uri)
    folders = [folder for folder in (database and database.parent, results and results.absolute()) if folder]
    from google.protobuf.json_format import Error as ProtobufError  # raised if the server is not MLflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        names = [experiments] if isinstance(experiments, str) else experiments
        return _load(names, tracking_uri, folders, include_outdated=former)
    except (MlflowException, ProtobufError, SQLAlchemyError, ImportError, OSError) as error:
        raise ReportError(
            f"tracking URI: expected an MLflow store, got '{without_passwords(tracking_uri)}' "
            f"({first_line(error, LONGEST_REASON)}). Check --tracking-uri."
        ) from error


def _load(
    experiments: Sequence[str] | None, tracking_uri: str, folders: Sequence[Path], *, include_outdated: bool
) -> Runs:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    name_by_id = find_experiments(client, experiments)
    stored = [run for experiment_id in name_by_id for run in all_runs(client, experiment_id)]
    parents, children = (_of_kind(stored, kind) for kind in (KIND_SWEEP, KIND_RUN))
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        files = Artifacts(tracking_uri, Path(folder), folders)
        sweeps = sorted((read_sweep(run, files) for run in parents), key=lambda sweep: (str(sweep.start), sweep.run_id))
        contended = {sweep.run_id: shares_machine(sweep) for sweep in sweeps}
        records = mark_outdated(newest(to_record(run, contended, name_by_id) for run in children), sweeps)
        left_out = 0 if include_outdated else sum(record["former"] for record in records)
        records = [record for record in records if include_outdated or not record["former"]]
        known = {str(record["run_key"]) for record in records}
        absent = "waiting" if any(sweep.is_running for sweep in sweeps) else "missing"
        records += planned_but_missing((entry for sweep in sweeps for entry in sweep.plan), known, absent)
        records, trials, defaults = by_role(records)
        if not records:
            shown = ", ".join(f"'{name}'" for name in name_by_id.values())
            got = "trials only" if trials else "none"
            raise ReportError(f"experiment {shown}: expected at least one run, got {got}. Run the grid first.")
        runs = tidy(records)
        by_id = {run_id_of(run): run for run in children}
        keys = dict(zip(runs["run_id"], runs["run_key"], strict=True))
        present = [by_id[run_id] for run_id in runs["run_id"] if run_id]
        histories = {keys[run_id_of(run)]: read_history(run, files) for run in present}
        pictured = _pictured(runs, by_id)
        images = {keys[run_id_of(run)]: files.images(run) for run in pictured}
        latents = {keys[run_id_of(run)]: read_latents(run, files) for run in pictured}
        sweeps = list(with_provenance(sweeps, present, files))
    notes = (*plan_notes(sweeps), *files.notes, *_history_notes(runs, histories), *_outdated_notes(left_out))
    notes += (*unreadable_notes(records), *changed_measures(runs))
    tuning = None
    if trials:
        space = read_space([sweep.growth for sweep in sweeps])
        tuning = Tuning(space, tidy(trials), tidy(defaults) if defaults else pd.DataFrame())
    return Runs(
        tuning=tuning,
        experiment=visible(", ".join(name_by_id.values()), NAME_LENGTH),
        runs=runs,
        history=history_frame(runs, histories),
        images={key: found for key, found in images.items() if found},
        sweeps=tuple(sweeps),
        notes=notes,
        latents={key: found for key, found in latents.items() if found},
    )


def _of_kind(stored: Sequence[Any], kind: str) -> list[Any]:
    return [run for run in stored if run.data.tags.get(TAG_KIND) == kind]


def _pictured(runs: pd.DataFrame, by_id: Mapping[str, Any]) -> list[Any]:
    """Return the runs whose images a report shows: the first finished seed of each setting and device."""
    finished = runs[(runs["status"] == FINISHED) & (runs["run_id"] != "")]
    return [by_id[run_id] for run_id in finished.groupby(["setting", "device"], sort=True)["run_id"].first()]


def _outdated_notes(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    runs, are = ("run", "is") if count == 1 else ("runs", "are")
    return (
        f"{count} stored {runs} {are} left out: no longer in the grid, because it or a plugin was edited since. "
        "--all includes them.",
    )


def _history_notes(runs: pd.DataFrame, histories: Mapping[str, list[Any]]) -> tuple[str, ...]:
    finished = runs.loc[runs["status"] == FINISHED, "run_key"]
    without = sum(not histories.get(key) for key in finished)
    if not without:
        return ()
    return (
        f"{without} of {len(finished)} finished runs have no readable {HISTORY_FILE}: they are absent from the curves.",
    )
