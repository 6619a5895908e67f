"""A stored child run as a flat record, and its files as numbers. Every text is made visible here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd

from reports.contract import stored_run as names
from reports.contract.settings import from_json
from reports.contract.text import NAME_LENGTH, visible
from reports.store.artifacts import Artifacts
from reports.store.frame import CORE, IDENTITY, UNTYPED, typed
from reports.store.tasks import stated_task

_FROM_MLFLOW = {"FINISHED": names.FINISHED, "FAILED": names.FAILED, "KILLED": names.INTERRUPTED}
_HUGE = 1e100
_WHEN = (names.EPOCH, names.STEP, names.ELAPSED_S)


def run_id_of(run: Any) -> str:
    """Return the id of a stored run, made visible."""
    return visible(run.info.run_id, NAME_LENGTH)


def to_record(run: Any, contended: Mapping[str, bool], experiments: Mapping[str, str]) -> dict[str, Any]:
    """Return one flat record of a child run: tags, typed params, last metrics.

    `contended` says by the id of a sweep whether its runs shared a machine; `experiments` has names by id.
    """
    tags = {name: visible(value) for name, value in run.data.tags.items()}
    params = {visible(name, NAME_LENGTH): visible(value) for name, value in run.data.params.items()}
    metrics = {visible(name, NAME_LENGTH): _sane(float(value)) for name, value in run.data.metrics.items()}
    named = (names.TAG_RUN_KEY, names.TAG_ESTIMATOR, names.TAG_SCHEDULE, names.TAG_DEVICE, names.TAG_SEED)
    identity = {name: tags.get(name, params.get(name)) for name in named}
    shared = typed(tags.get(names.SHARED_MACHINE, params.get(names.SHARED_MACHINE)))
    shared = metrics.pop(names.SHARED_MACHINE, None) if shared is None else shared
    sweep = tags.get(names.TAG_SWEEP, tags.get(names.TAG_PARENT, ""))
    record = {name: _typed(name, value) for name, value in params.items() if "/" not in name}  # as metrics have
    record = {name: value for name, value in (record | metrics).items() if name not in (*CORE, *IDENTITY)}
    return record | {
        **identity,
        "run_key": identity[names.TAG_RUN_KEY] or run_id_of(run),
        "estimator": visible(identity[names.TAG_ESTIMATOR] or "unknown", NAME_LENGTH),
        "run_id": run_id_of(run),
        "name": visible(run.info.run_name or "", NAME_LENGTH),
        "label": visible(tags.get(names.TAG_LABEL, ""), NAME_LENGTH),
        "estimator_label": visible(tags.get(names.TAG_ESTIMATOR_LABEL, ""), NAME_LENGTH),
        "status": tags.get(names.TAG_STATUS) or _FROM_MLFLOW.get(run.info.status, names.RUNNING),
        "error": visible(run.data.tags.get(names.TAG_ERROR, "").partition("\n")[0]),
        "sweep": sweep,
        "experiment": visible(experiments.get(str(run.info.experiment_id), ""), NAME_LENGTH),
        "experiment_id": visible(str(run.info.experiment_id), NAME_LENGTH),
        "parts": from_json(run.data.tags.get(names.TAG_SETTING, "")),
        "source": str(record.get(names.PARAM_SOURCE) or ""),
        "start": utc(run.info.start_time),
        "end": utc(run.info.end_time),
        "shared_machine": bool(shared) if shared is not None else contended.get(sweep, False),
        **stated_task(run.data.tags),
        **_stated_role(tags),
    }


def _stated_role(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what a run of a tuned sweep is for; nothing of another."""
    if names.TAG_ROLE not in tags:
        return {}
    competitor = visible(tags.get(names.TAG_COMPETITOR, ""), NAME_LENGTH)
    return {"role": visible(tags[names.TAG_ROLE], NAME_LENGTH), "competitor": competitor}


def read_history(run: Any, files: Artifacts) -> list[dict[str, float]]:
    """Return the numbers of every epoch; nothing if an epoch does not say when it was."""
    rows = [_numbers(row) for row in files.records(run, names.HISTORY_FILE)]
    return rows if all(all(math.isfinite(row.get(name, math.nan)) for name in _WHEN) for row in rows) else []


def read_latents(run: Any, files: Artifacts) -> dict[str, Any]:
    """Return what latents.json says of each variable, as far as it has lists of numbers."""
    if names.LATENTS_FILE not in run.data.tags.get(names.TAG_CHECKSUMS, ""):  # older runs have none
        return {}
    found = files.json(run, names.LATENTS_FILE, dict)
    lists = {name: values for name, values in found.items() if isinstance(values, list) and values}
    return {name: values for name, values in lists.items() if all(_is_numeric(value) for value in values)}


def utc(milliseconds: int | None) -> pd.Timestamp | None:
    """Return the time, or None if there is none or no clock can show it."""
    try:
        return pd.Timestamp(milliseconds, unit="ms", tz="UTC") if milliseconds else None
    except (ValueError, OverflowError):
        return None


def _typed(name: str, value: str) -> Any:
    return typed(value) if name not in UNTYPED else None if value == "None" else value


def _sane(value: float) -> float:
    """Return the value of a final metric, NaN if it is no measurement: MLflow keeps an infinity as 1.8e308."""
    return value if abs(value) < _HUGE else math.nan


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_numeric(inner) for inner in value)
    return isinstance(value, int | float) and abs(value) < _HUGE


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that can be drawn and are no part of the run's identity; a loss may be nan or infinite."""
    shown = ((_shown(name), value) for name, value in row.items() if isinstance(value, int | float))
    return {name: value for name, value in shown if name not in IDENTITY and not _HUGE < abs(value) < math.inf}


@lru_cache(maxsize=4096)
def _shown(name: str) -> str:
    """Return the name of a metric, made visible once for all epochs."""
    return visible(name, NAME_LENGTH)
