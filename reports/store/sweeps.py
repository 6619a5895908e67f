"""A stored parent run as a `Sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reports.contract.stored_run import (
    BASKET_FILE,
    GRID_FILE,
    GROWTH_FILE,
    PLAN_FILE,
    PROVENANCE_FILE,
    TAG_CHECKSUMS,
    TAG_COMMAND,
    TAG_QUESTION,
)
from reports.contract.text import FILE_LENGTH, visible, visible_json, visible_lines
from reports.store.artifacts import Artifacts
from reports.store.frame import Sweep, typed
from reports.store.records import run_id_of, utc


def read_sweep(run: Any, files: Artifacts) -> Sweep:
    """Return what a parent run says of its sweep."""
    return Sweep(
        run_id=run_id_of(run),
        command=visible(run.data.tags.get(TAG_COMMAND, "")),
        question=visible_lines(run.data.tags.get(TAG_QUESTION, "")),
        grid=visible_lines(files.text(run, GRID_FILE), FILE_LENGTH),
        provenance=files.json(run, PROVENANCE_FILE, dict),
        plan=[_planned(entry) for entry in files.records(run, PLAN_FILE)],
        growth=_optional(run, files, GROWTH_FILE),
        basket=_basket(run, files),
        start=utc(run.info.start_time),
        is_running=run.info.status == "RUNNING",
    )


def with_provenance(sweeps: Sequence[Sweep], present: Sequence[Any], files: Artifacts) -> Sequence[Sweep]:
    """Return the sweeps, the last one with the provenance of its newest run if none has any of its own."""
    if not sweeps or not present or any(sweep.provenance for sweep in sweeps):
        return sweeps
    return [*sweeps[:-1], replace(sweeps[-1], provenance=files.json(present[-1], PROVENANCE_FILE, dict))]


def shares_machine(sweep: Sweep) -> bool:
    """Return whether runs of the sweep shared a machine: it had several workers."""
    return _workers(sweep.provenance) > 1


def plan_notes(sweeps: Sequence[Sweep]) -> tuple[str, ...]:
    """Return a note if plans cannot be read: without them, missing and outdated runs are not known."""
    n = sum(not sweep.plan for sweep in sweeps)
    if not n:
        return ()
    which = "the sweep" if len(sweeps) == 1 else f"{n} of {len(sweeps)} sweeps"
    return (
        f"The plan of {which} ({PLAN_FILE}) cannot be read. Missing runs are not known, and runs that are no longer in "
        "the grid are shown like the others.",
    )


def _planned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a planned run made visible, but for its setting, which is compared before it is made visible."""
    return {**visible_json(entry), "setting": entry.get("setting")}


def _basket(run: Any, files: Artifacts) -> dict[str, str]:
    found = _optional(run, files, BASKET_FILE)
    return {name: label for name, label in found.items() if isinstance(label, str)}


def _optional(run: Any, files: Artifacts, name: str) -> dict[str, Any]:
    """Return the content of a file that not every sweep has."""
    found: dict[str, Any] = files.json(run, name, dict) if name in run.data.tags.get(TAG_CHECKSUMS, "") else {}
    return found


def _workers(provenance: Mapping[str, Any]) -> int:
    for holder in (provenance, *(value for value in provenance.values() if isinstance(value, dict))):
        value = typed(holder.get("workers"))
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 1
