"""The tidy frames that every table and figure is made from.

``Runs.runs`` has one row per run. A run that was planned but left no trace has a row too, with status ``missing``, or
``waiting`` while its sweep runs:

==================  =========================================================================================
run_id              MLflow run id; empty for a missing run
run_key             hash of the run's configuration; unique in the frame (the newest finished attempt is kept)
name, label         as stored; ``label`` is the setting without the seed: ``rloo(n_samples=4) · constant(1)``
estimator           the estimator's name: what a colour stands for
estimator_label     the estimator with its parameters: ``rloo(n_samples=4)``
schedule            the temperature schedule as stored; a missing value where the estimator has no temperature
schedule_label      the schedule with its parameters: ``constant(1)``; a missing value where there is none
axes                every other swept field, ``training.lr=0.001``; empty where nothing else is swept
shared_axes         those of them that have the same values for every estimator: what a grid sweeps for all
own_axes            the others, which estimators have for themselves: a tuple of pairs ``("lr", "0.001")``
setting             estimator_label · schedule_label · axes: runs of one setting and device differ by seed only.
                    Texts for readers, as shared_axes: what differs has different ones (``reports.store.setting_names``)
task                the name of the task; categorical_vae for older stores
task_label          the task with the parameters by which it differs from others: ``polynomial(p=2)``. Settings of
                    different task labels are never compared, and a setting has the same text on all of them
measures            what the settings of the task are compared by, as JSON (``reports.contract.measures``): names, units
                    and which direction is better
device, seed        as stored; ``seed`` is an integer
status              finished, failed, diverged, skipped, interrupted, running, waiting or missing
error               first line of the error, empty where there is none
sweep               run id of the parent run
experiment          name of its experiment; experiment_id is MLflow's number of it
former              True if the run is no longer in the grid: grid or plugin was edited since
start, end          UTC; NaT where unknown
shared_machine      True where other runs used the machine at the same time, so that timings are contended
<dotted name>       a parameter of the resolved configuration, typed: ``training.lr``, ``model.n_latents``
<name with slash>   the last value of a metric: ``test/neg_elbo``, ``time/step_s_median``; nats per example, seconds;
                    a measure of another task has the unit that it declares
==================  =========================================================================================

``test/soft_hard_gap`` is derived: ``test/neg_elbo`` minus ``test/relaxed_loss``.

``Runs.history`` has one row per run and epoch: ``run_key, estimator, estimator_label, schedule_label, axes,
shared_axes, own_axes, setting, device, seed, status``, then ``epoch``, ``step``, ``elapsed_s`` (training seconds,
cumulated) and a column per metric.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports.contract import stored_run as names
from reports.contract.atomic_files import write_bytes_atomically
from reports.contract.errors import ReportError
from reports.contract.measures import DeclaredMeasure
from reports.contract.settings import from_stored
from reports.store.setting_names import is_absent, name_settings
from reports.store.tasks import measures_of, task_labels

STATUSES = (
    names.FINISHED,
    names.FAILED,
    names.DIVERGED,
    names.INTERRUPTED,
    names.RUNNING,
    "waiting",
    names.SKIPPED,
    "missing",
)
ABSENT = ("missing", "waiting")  # only their plan is known
WORST = (names.FAILED, names.DIVERGED)  # these rank last; the others have not been tried to the end
IDENTITY = (
    *("run_key", "estimator", "estimator_label", "schedule_label", "axes", "shared_axes", "own_axes", "setting"),
    *("device", "seed", "status"),
)
CORE = (
    *("run_id", "run_key", "name", "label", "estimator", "estimator_label", "schedule", "schedule_label", "axes"),
    *(
        "shared_axes",
        "own_axes",
        "setting",
        "device",
        "seed",
        "status",
        "error",
        "sweep",
        "experiment",
        "experiment_id",
        "former",
    ),
    *("start", "end", "shared_machine", "task", "task_label", "measures"),
)
UNTYPED = (names.PARAM_BASKET, names.PARAM_SOURCE, names.PARAM_TASK_SOURCE)
"""Labels and hashes are texts, whatever they look like."""
_LAST_SEED = 2**32 - 1
_NUMBER = re.compile(r"[+-]?([0-9]{1,4000}|([0-9]+\.[0-9]*|\.?[0-9]+)(e[+-]?[0-9]+)?)", re.ASCII | re.IGNORECASE)
_TEXTS = (
    *("run_id", "run_key", "name", "label", "estimator", "estimator_label", "schedule", "device", "error", "sweep"),
    *("experiment", "experiment_id", "task"),
)


@dataclass(frozen=True, repr=False)
class Sweep:
    """A parent run: what was asked, and where and how it was answered."""

    run_id: str
    command: str = ""
    question: str = ""
    grid: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    plan: Sequence[Mapping[str, Any]] = ()
    basket: Mapping[str, str] = field(default_factory=dict)  # name among the metrics -> label, of the diagnostics
    start: pd.Timestamp | None = None
    is_running: bool = False  # as far as the store knows

    def __repr__(self) -> str:
        state = names.RUNNING if self.is_running else "over"
        return f"Sweep({self.run_id[:32]!r}: {len(self.plan)} planned runs, {state}, began {self.start})"


@dataclass(frozen=True, repr=False)
class Runs:
    """All stored runs of one experiment. The schema is in this module's docstring."""

    experiment: str
    runs: pd.DataFrame
    history: pd.DataFrame
    images: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)  # run_key -> kind -> PNG
    sweeps: tuple[Sweep, ...] = ()
    notes: tuple[str, ...] = ()  # what could not be read; the report prints them
    latents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # run_key -> latents.json

    def __repr__(self) -> str:
        counts = self.runs["status"].value_counts()
        ended = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
        what = f"{len(self.runs)} runs of {self.runs['setting'].nunique()} settings ({ended})"
        more = f"{len(self.history)} epochs in .history, pictures of {len(self.images)} runs, {len(self.notes)} notes"
        return f"Runs({self.experiment[:64]!r}: {what} in .runs,\n     {more})"

    @property
    def tasks(self) -> list[str]:
        """The labels of the tasks that the runs have."""
        return task_labels(self.runs)

    @property
    def measures(self) -> dict[str, tuple[DeclaredMeasure, ...]]:
        """What the settings of each task are compared by, by the label of the task; the first ranks them."""
        return {label: measures_of(self.runs[self.runs["task_label"] == label]) for label in self.tasks}

    def of_task(self, label: str) -> Runs:
        """Return the runs of one task. Raises ReportError if there are none."""
        if label not in self.tasks:
            raise ReportError(f"task: expected one of {', '.join(self.tasks)}; got '{label}'.")
        runs = self.runs[self.runs["task_label"] == label]
        runs = runs[_kept(runs)].reset_index(drop=True)
        keys = set(runs["run_key"])
        history = self.history[self.history["run_key"].isin(keys)]
        return replace(
            self,
            runs=runs,
            history=history[_kept_of_history(history)].reset_index(drop=True),
            images={key: found for key, found in self.images.items() if key in keys},
            latents={key: found for key, found in self.latents.items() if key in keys},
        )

    def parquet_files(self) -> dict[str, bytes]:
        """Return the content of runs.parquet and history.parquet by name."""
        return {"runs.parquet": parquet(self.runs), "history.parquet": parquet(self.history)}

    def to_parquet(self, folder: Path) -> None:
        """Write both files into ``folder``, each atomically."""
        for name, content in self.parquet_files().items():
            write_bytes_atomically(folder / name, content)


def _kept(runs: pd.DataFrame) -> list[str]:
    """Return the columns of runs of one task: the core, and those that one of them has a value in."""
    return [str(name) for name in runs if name in CORE or runs[name].notna().any()]


def _kept_of_history(history: pd.DataFrame) -> list[str]:
    always = (*IDENTITY, names.EPOCH, names.STEP, names.ELAPSED_S)
    return [str(name) for name in history if name in always or history[name].notna().any()]


def typed(text: Any) -> Any:
    """Return a parameter, which MLflow keeps as text, with its type: ``"3"`` -> 3, ``"True"`` -> True."""
    if not isinstance(text, str):
        return text
    plain = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
    if text in plain:  # "none" stays: it is the name of a choice, such as data.binarization
        return plain[text]
    if _NUMBER.fullmatch(text):  # no "nan", "1_000" or digits of another script: those are texts
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def newest(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record per run key: the newest finished attempt, else the newest attempt."""
    best: dict[str, dict[str, Any]] = {}
    for record in records:
        key = str(record["run_key"])
        if key not in best or _rank(record) > _rank(best[key]):
            best[key] = dict(record)
    return list(best.values())


def _rank(record: Mapping[str, Any]) -> tuple[bool, float, str]:
    return record["status"] == names.FINISHED, _started(record), str(record["run_id"])


def _started(record: Mapping[str, Any]) -> float:
    start = record.get("start")
    return start.timestamp() if start is not None and not pd.isna(start) else 0.0


def mark_outdated(records: Sequence[dict[str, Any]], sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """Return the records with ``former``: whether the run is in no plan, so no longer in the grid.

    If the plans have none of the runs, none is marked. Runs of an estimator whose file was edited since get its
    ``version``, so that they are settings of their own: all but those of the version that was planned and started last.
    """
    planned = {str(entry.get("run_key", "")) for sweep in sweeps for entry in sweep.plan}
    known = all(sweep.plan for sweep in sweeps) and any(str(record["run_key"]) in planned for record in records)
    marked = [{**record, "former": known and str(record["run_key"]) not in planned} for record in records]
    current: dict[str, Any] = {}  # the source of each estimator's planned run that started last
    for record in sorted(marked, key=_started):
        if not record["former"]:
            current[str(record["estimator"])] = record.get("source")
    for record in marked:
        if current.get(str(record["estimator"]), record.get("source")) != record.get("source"):
            record["version"] = str(record.get("source") or "")[:8]
    return [{name: value for name, value in record.items() if name != "source"} for record in marked]


def planned_but_missing(
    plan: Iterable[Mapping[str, Any]], known: set[str], status: str = "missing"
) -> list[dict[str, Any]]:
    """Return records of planned runs that are not in the store, as ``missing``, or ``waiting`` while they may come."""
    missing: dict[str, dict[str, Any]] = {}
    for entry in plan:
        key = str(entry.get("run_key", ""))
        if key and key not in known:
            stated = ("name", "label", "estimator", "schedule", "device", "seed", "task")
            fields = {name: "" if entry.get(name) is None else str(entry[name]) for name in stated}
            parts = from_stored(entry.get("setting"))
            missing[key] = {**fields, "parts": parts, "run_id": "", "run_key": key, "status": status, "error": ""}
    return list(missing.values())


def tidy(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per record, core columns first, sorted by setting, device, seed and key.

    A record may have ``parts``, its setting, and ``version``, that of its estimator; without parts its label is read.
    One without a task and a declaration of measures is of the VAE, as in older stores.
    """
    own = ("parts", "version", "unreadable")
    frame = pd.DataFrame.from_records([{k: v for k, v in record.items() if k not in own} for record in records])
    for name in CORE:
        if name not in frame:
            frame[name] = None
    for name in _TEXTS:
        frame[name] = frame[name].fillna("").astype(str)
    seeds = pd.to_numeric(frame["seed"], errors="coerce").astype("Float64")
    frame["seed"] = seeds.where(seeds.between(0, _LAST_SEED) & (seeds % 1 == 0)).astype("Int64")
    frame["start"] = pd.to_datetime(frame["start"], utc=True)
    frame["end"] = pd.to_datetime(frame["end"], utc=True)
    for name in ("shared_machine", "former"):
        frame[name] = frame[name].eq(True)
    if {names.TEST_NEG_ELBO, names.TEST_RELAXED_LOSS} <= set(frame.columns):
        frame[names.TEST_GAP] = frame[names.TEST_NEG_ELBO] - frame[names.TEST_RELAXED_LOSS]
    parameters = [name for name in frame.columns if name not in CORE and "/" not in name]
    frame[parameters] = frame[parameters].convert_dtypes()  # a missing run must not turn 20 latents into 20.0
    parts, versions = ([record.get(name) for record in records] for name in ("parts", "version"))
    frame = name_settings(frame, parts, versions, frame[parameters], ~frame["status"].isin(ABSENT))
    others = sorted(name for name in frame.columns if name not in CORE)
    order = ["task_label", "setting", "device", "seed", "run_key"]
    return frame[[*CORE, *others]].sort_values(order, kind="stable", na_position="last").reset_index(drop=True)


def history_frame(runs: pd.DataFrame, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Return one row per run and epoch; ``histories`` maps a run key to the list stored as ``history.json``."""
    epochs = [list(histories.get(key, ())) for key in runs["run_key"]]
    numbers = pd.DataFrame.from_records([dict(epoch) for run in epochs for epoch in run])
    identity = runs[list(IDENTITY)].loc[runs.index.repeat([len(run) for run in epochs])].reset_index(drop=True)
    frame = pd.concat([identity, numbers], axis=1)
    for name in (*IDENTITY, "epoch", "step", "elapsed_s"):
        if name not in frame:
            frame[name] = pd.Series(dtype="float64" if name in ("epoch", "step", "elapsed_s") else "object")
    first = [*IDENTITY, "epoch", "step", "elapsed_s"]
    columns = [name for name in frame.columns if name not in IDENTITY]
    frame[columns] = frame[columns].apply(pd.to_numeric, errors="coerce")
    return frame[[*first, *sorted(name for name in frame.columns if name not in first)]].copy()


def parquet(frame: pd.DataFrame) -> bytes:
    """Return the frame as Parquet; a column of mixed types as text. The same frame gives the same bytes."""
    mixed = [name for name in frame if frame[name].dtype == object and not frame[name].map(_is_text).all()]
    content = io.BytesIO()
    frame.assign(**{str(name): frame[name].map(_as_text) for name in mixed}).to_parquet(content, index=False)
    return content.getvalue()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or is_absent(value)


def _as_text(value: Any) -> str | None:
    return None if is_absent(value) else value if isinstance(value, str) else json.dumps(value, default=str)
