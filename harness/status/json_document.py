"""The document that `--json` prints. docs/json.md promises its keys."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.events import Failed, Finished
from harness.status.next_commands import NextCommand
from harness.status.ranking import RankedSetting, rank, result
from harness.status.t_interval import CONFIDENCE, Mean
from harness.status.time_left import RunProgress, epochs_done
from reports.contract.stored_run import ENDED, RUNNING, TOTAL_S

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.storage.lease import Holder
    from harness.storage.sweep_state import Sweep

SCHEMA = 1
STATUSES = ("planned", RUNNING, *ENDED)


def document(
    sweep: "Sweep",
    next_commands: Sequence[NextCommand],
    *,
    driver: "Holder | None" = None,
    running: Sequence[RunProgress] = (),
    seconds_left: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the document. `more` has the keys that only one command prints."""
    counts = sweep.counts()
    ranked = rank(sweep)
    by_key = {one.run.key: one for one in running}
    selected = {run.key for run in sweep.selected}
    return {
        "schema": SCHEMA,
        "sweep": sweep.grid.name,
        "folder": str(sweep.folder),
        **more,
        "driver": None if driver is None else _driver(driver),
        "counts": {"total": counts.total(), **{status: counts[status] for status in STATUSES}},
        "seconds_left": seconds_left,
        "metric": sweep.grid.runs[0].measures[0].metric,
        "confidence": CONFIDENCE,
        "ranking": _ranking(ranked),
        "next": [one.command for one in next_commands],
        "runs": [{**_run(sweep, run, by_key.get(run.key)), "selected": run.key in selected} for run in sweep.grid.runs],
    }


def _driver(holder: "Holder") -> dict[str, Any]:
    return {
        "host": holder.host,
        "pid": holder.pid,
        "since": holder.started,
        "heartbeat_age_s": max(holder.age_s, 0.0),
        "expired": holder.expired,
    }


def _ranking(ranked: Sequence[RankedSetting]) -> list[dict[str, Any]]:
    """Return the settings with their positions within their task."""
    by_task: dict[str, list[RankedSetting]] = {}
    for one in ranked:
        by_task.setdefault(one.task, []).append(one)
    return [_ranked(one, i, mine[0]) for mine in by_task.values() for i, one in enumerate(mine, 1)]


def _ranked(one: RankedSetting, position: int, best: RankedSetting) -> dict[str, Any]:
    difference = None
    if one.difference is not None:
        excludes_zero = one.difference.excludes_zero if one.difference.low is not None else None
        difference = {"to": best.setting, **_mean(one.difference), "excludes_zero": excludes_zero}
    return {
        "rank": position,
        "task": one.task,
        "metric": one.measure.metric,
        "better": one.measure.better,
        "setting": one.setting,
        "n_planned": one.n_planned,
        "n_failed": one.n_failed,
        "n_diverged": one.n_diverged,
        **_mean(one.value),
        "difference": difference,
    }


def _mean(value: Mean | None) -> dict[str, Any]:
    return {"n": 0, "mean": None, "low": None, "high": None} if value is None else asdict(value)


def _run(sweep: "Sweep", run: "RunConfig", live: RunProgress | None) -> dict[str, Any]:
    end = sweep.ends.get(run.key)
    metrics = end.metrics if isinstance(end, Finished) else {}
    return {
        "key": run.key,
        "name": run.name,
        "setting": run.label,
        "seed": run.seed,
        "status": sweep.status(run),
        "epoch": epochs_done(sweep, run),
        "n_epochs": run.n_epochs,
        "value": result(end, run.measures[0]),
        "seconds": metrics.get(TOTAL_S),
        "error": getattr(end, "error", None),
        "traceback": (end.traceback or None) if isinstance(end, Failed) else None,
        "since_start_s": live.since_start_s if live else None,
        "since_epoch_s": live.since_epoch_s if live else None,
        "left_s": live.left_s if live else None,
    }


def to_text(found: Mapping[str, Any]) -> str:
    """Return the document as ASCII JSON with one item of a list per line.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_value(value)}" for key, value in found.items()) + "\n}"


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join("  " + json.dumps(item, allow_nan=False) for item in value) + "\n]"
    return json.dumps(value, allow_nan=False)
