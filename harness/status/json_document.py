"""What `--json` prints: one document of what is known of a sweep, as docs/json.md promises it."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.events import Failed, Finished
from harness.status.next_commands import Step
from harness.status.ranking import METRIC, Level, rank
from harness.status.t_interval import CONFIDENCE, Mean
from harness.status.time_left import UnderWay, epochs_done
from reports.contract.stored_run import ENDED, RUNNING, TOTAL_S

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.storage.lease import Holder
    from harness.storage.sweep_state import Sweep

SCHEMA = 1
STATUSES = ("planned", RUNNING, *ENDED)


def document(
    sweep: "Sweep",
    steps: Sequence[Step],
    *,
    driver: "Holder | None" = None,
    running: Sequence[UnderWay] = (),
    seconds_left: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the document; `more` are the keys that one command has alone."""
    counts = sweep.counts()
    levels = rank(sweep)
    by_key = {one.run.key: one for one in running}
    chosen = {run.key for run in sweep.selected}
    return {
        "schema": SCHEMA,
        "sweep": sweep.grid.name,
        "folder": str(sweep.folder),
        **more,
        "driver": None if driver is None else _driver(driver),
        "counts": {"total": counts.total(), **{status: counts[status] for status in STATUSES}},
        "seconds_left": seconds_left,
        "metric": METRIC,
        "confidence": CONFIDENCE,
        "ranking": [_level(level, place, levels[0]) for place, level in enumerate(levels, 1)],
        "next": [step.command for step in steps],
        "runs": [{**_run(sweep, run, by_key.get(run.key)), "selected": run.key in chosen} for run in sweep.grid.runs],
    }


def _driver(one: "Holder") -> dict[str, Any]:
    facts = {"host": one.host, "pid": one.pid, "since": one.started}
    return {**facts, "heartbeat_age_s": max(one.age_s, 0.0), "expired": one.expired}


def _level(level: Level, place: int, best: Level) -> dict[str, Any]:
    difference = None
    if level.difference is not None:
        told = level.difference.excludes_zero if level.difference.low is not None else None
        difference = {"to": best.setting, **_mean(level.difference), "excludes_zero": told}
    return {
        "rank": place,
        "setting": level.setting,
        "n_planned": level.n_planned,
        "n_failed": level.n_failed,
        "n_diverged": level.n_diverged,
        **_mean(level.value),
        "difference": difference,
    }


def _mean(value: Mean | None) -> dict[str, Any]:
    if value is None:
        return {"n": 0, "mean": None, "low": None, "high": None}
    return {"n": value.n, "mean": value.mean, "low": value.low, "high": value.high}


def _run(sweep: "Sweep", run: "RunConfig", live: UnderWay | None) -> dict[str, Any]:
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
        "value": metrics.get(METRIC),
        "seconds": metrics.get(TOTAL_S),
        "error": getattr(end, "error", None),
        "traceback": (end.traceback or None) if isinstance(end, Failed) else None,
        "since_start_s": live.since_start_s if live else None,
        "since_epoch_s": live.since_epoch_s if live else None,
        "left_s": live.left_s if live else None,
    }


def to_text(found: Mapping[str, Any]) -> str:
    """Return the document as JSON in ASCII, an item of a list per line. ValueError for what JSON cannot say (NaN)."""
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_value(value)}" for key, value in found.items()) + "\n}"


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join("  " + json.dumps(item, allow_nan=False) for item in value) + "\n]"
    return json.dumps(value, allow_nan=False)
