"""From an MLflow experiment to tidy frames: the only module here that knows MLflow.

The stored names are those of docs/architecture.md, "stored runs"; the frames are described in ``reports.frame``.
MLflow is imported inside the functions: it costs two seconds, and nothing else in ``reports`` needs it.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pandas as pd

from reports.frame import CORE, ReportError, Runs, Sweep, history_frame, newest, planned_but_missing, tidy, typed

IMAGES = ("originals", "reconstructions", "prior_samples")
_FROM_MLFLOW = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}
_TIMEOUT_S = 5.0
_PAGE = 1000

__all__ = ["ReportError", "Runs", "load"]


def load(experiment: str | None, tracking_uri: str) -> Runs:
    """Read every run of ``experiment`` (None: the only one there is) from the store at ``tracking_uri``.

    Raises ReportError, one line, where the store does not answer or has no such experiment or no runs in it.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    tracking_uri = _checked_uri(tracking_uri)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _load(experiment, tracking_uri)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ReportError(
            f"tracking URI: expected an MLflow store, got '{_without_password(tracking_uri)}' ({reason[:200]}). "
            "Check --tracking-uri."
        ) from error


def _load(experiment: str | None, tracking_uri: str) -> Runs:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = experiment or _only(client)
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "active":
        raise ReportError(_unknown(experiment, client))
    stored = list(_search(client, found.experiment_id))
    parents = [run for run in stored if run.data.tags.get("harness.kind") == "sweep"]
    children = [run for run in stored if run.data.tags.get("harness.kind") == "run"]
    if not parents and not children:
        raise ReportError(f"experiment '{experiment}': expected at least one run, got none. Run the grid first.")

    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        read = _Artifacts(client, Path(folder))
        sweeps = tuple(
            sorted((_sweep(run, read) for run in parents), key=lambda sweep: (str(sweep.start), sweep.run_id))
        )
        contended = {sweep.run_id: _workers(sweep.provenance) > 1 for sweep in sweeps}
        records = newest(_record(run, contended) for run in children)
        by_id = {run.info.run_id: run for run in children}
        records += planned_but_missing(
            (entry for sweep in sweeps for entry in sweep.plan), {str(record["run_key"]) for record in records}
        )
        if not records:
            raise ReportError(f"experiment '{experiment}': expected at least one run, got none. Run the grid first.")
        runs = tidy(records)
        present = [by_id[run_id] for run_id in runs["run_id"] if run_id]
        keys = dict(zip(runs["run_id"], runs["run_key"], strict=True))
        histories = {keys[run.info.run_id]: read.json(run, "history.json", list) for run in present}
        images = {keys[run.info.run_id]: read.images(run) for run in _pictured(runs, by_id)}
        if sweeps and not any(sweep.provenance for sweep in sweeps) and present:
            sweeps = (*sweeps[:-1], _with_provenance(sweeps[-1], read.json(present[-1], "provenance.json", dict)))
    notes = _notes(runs, histories)
    images = {key: found_images for key, found_images in images.items() if found_images}
    return Runs(experiment, runs, history_frame(runs, histories), images, sweeps, notes)


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


def _only(client: Any) -> str:
    names = _names(client)
    if len(names) != 1:
        there = ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "none yet; run a grid first"
        raise ReportError(f"experiment: expected a name, as there is not just one. There is: {there}.")
    return names[0]


def _unknown(experiment: str, client: Any) -> str:
    names = _names(client)
    there = ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "none yet; run a grid first"
    return f"experiment: expected the name of a stored experiment, got '{experiment}'. There is: {there}."


def _record(run: Any, contended: Mapping[str, bool]) -> dict[str, Any]:
    """One flat record of a child run: tags, typed params, last metrics."""
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    record: dict[str, Any] = {name: typed(value) for name, value in params.items() if name not in CORE}
    record |= {name: float(value) for name, value in metrics.items()}
    for name in ("run_key", "estimator", "schedule", "device", "seed"):
        record[name] = tags.get(name, params.get(name))
    record["run_key"] = record["run_key"] or run.info.run_id
    record["estimator"] = record["estimator"] or "unknown"
    shared = typed(tags.get("time/shared_machine", params.get("time/shared_machine")))
    shared = record.pop("time/shared_machine", None) if shared is None else shared
    sweep = tags.get("harness.sweep", tags.get("mlflow.parentRunId", ""))
    return record | {
        "run_id": run.info.run_id,
        "name": run.info.run_name or "",
        "label": tags.get("harness.label", ""),
        "estimator_label": tags.get("harness.estimator_label", ""),
        "status": tags.get("harness.status") or _FROM_MLFLOW.get(run.info.status, "running"),
        "error": tags.get("harness.error", ""),
        "sweep": sweep,
        "start": _utc(run.info.start_time),
        "end": _utc(run.info.end_time),
        "shared_machine": bool(shared) if shared is not None else contended.get(sweep, False),
    }


def _sweep(run: Any, read: _Artifacts) -> Sweep:
    return Sweep(
        run_id=run.info.run_id,
        command=run.data.tags.get("harness.command", ""),
        question=run.data.tags.get("harness.question", ""),
        grid=read.text(run, "grid.yaml"),
        provenance=read.json(run, "provenance.json", dict),
        plan=read.json(run, "plan.json", list),
        start=_utc(run.info.start_time),
    )


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
    finished = runs[(runs["status"] == "finished") & (runs["run_id"] != "")]
    return [by_id[run_id] for run_id in finished.groupby(["setting", "device"], sort=True)["run_id"].first()]


def _notes(runs: pd.DataFrame, histories: Mapping[str, list[Any]]) -> tuple[str, ...]:
    finished = runs.loc[runs["status"] == "finished", "run_key"]
    without = sum(not histories.get(key) for key in finished)
    if not without:
        return ()
    return (
        f"{without} of {len(finished)} finished runs have no readable history.json: they are absent from the curves.",
    )


def _utc(milliseconds: int | None) -> pd.Timestamp | None:
    return None if not milliseconds else pd.Timestamp(milliseconds, unit="ms", tz="UTC")


class _Artifacts:
    """Artifacts of a run, read in place where they lie on this machine, else downloaded; absent ones are empty."""

    def __init__(self, client: Any, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def content(self, run: Any, name: str) -> bytes:
        root = _local_path(run.info.artifact_uri)
        path = self._download(run.info.run_id, name) if root is None else root / name
        try:
            return path.read_bytes()
        except OSError:
            return b""

    def _download(self, run_id: str, name: str) -> Path:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        target = self._folder / run_id
        target.mkdir(exist_ok=True)
        try:
            return Path(self._client.download_artifacts(run_id, name, str(target)))
        except (MlflowException, RequestException, OSError):
            return target / "absent"

    def text(self, run: Any, name: str) -> str:
        return self.content(run, name).decode("utf-8", errors="replace")

    def json(self, run: Any, name: str, kind: Callable[[], Any]) -> Any:
        """The parsed file, or an empty ``kind`` where it is absent, damaged or something else."""
        try:
            value = json.loads(self.text(run, name))
        except ValueError:
            return kind()
        if kind is list:
            return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
        return value if isinstance(value, type(kind())) else kind()

    def images(self, run: Any) -> dict[str, bytes]:
        found = {kind: self.content(run, f"images/{kind}.png") for kind in IMAGES}
        return {kind: png for kind, png in found.items() if png.startswith(b"\x89PNG\r\n\x1a\n")}


def _local_path(artifact_uri: str) -> Path | None:
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file":
        return Path(url2pathname(unquote(parts.path)))
    if not parts.scheme or len(parts.scheme) == 1:  # a plain path; one letter is a Windows drive
        return Path(artifact_uri)
    return None


def _checked_uri(tracking_uri: str) -> str:
    """Fail in seconds where there is no store: MLflow would retry for minutes, or make a new one."""
    parts = urlsplit(tracking_uri)
    shown = _without_password(tracking_uri)
    if parts.scheme == "sqlite":
        _check_sqlite(tracking_uri.removeprefix("sqlite:///").split("?")[0])
    elif parts.scheme in ("http", "https"):
        try:
            _knock(parts.scheme, parts.hostname or "", parts.port)
        except (OSError, HTTPException, ValueError) as error:
            raise ReportError(
                f"tracking URI: expected a tracking server that answers, got '{shown}' ({error}). "
                "Start it, or give --tracking-uri."
            ) from error
    elif not parts.scheme and Path(tracking_uri).is_file():
        return _checked_uri(f"sqlite:///{Path(tracking_uri).resolve()}")
    return tracking_uri


def _knock(scheme: str, host: str, port: int | None) -> None:
    """Raise OSError unless something answers within seconds. Any HTTP status will do: MLflow reports the rest."""
    if scheme == "https":
        socket.create_connection((host, port or 443), timeout=_TIMEOUT_S).close()
        return
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
    connection.request("GET", "/health")
    connection.getresponse()
    connection.close()


def _check_sqlite(name: str) -> None:
    path = Path(name).resolve()
    if not path.is_file():
        raise ReportError(
            f"tracking URI: expected a database, got no file at '{path}'. Run a grid first, or give --tracking-uri."
        )
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise ReportError(
            f"tracking URI: expected an MLflow database, got '{path}' ({error}). Give another --tracking-uri."
        ) from error
    if "experiments" not in tables:
        raise ReportError(
            f"tracking URI: expected an MLflow database, got '{path}' without experiments. Give another --tracking-uri."
        )


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    return uri.replace(f":{parts.password}@", ":…@", 1)
