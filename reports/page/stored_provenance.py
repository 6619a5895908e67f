"""Where the numbers come from, as label and text pairs, read from the stored provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from reports.store.frame import Runs

_NAMED = {
    "python": "Python",
    "platform": "System",
    "cpu": "Processor",
    "cpu_count": "Processor cores",
    "cpu_capability": "Instruction set",
    "gpu": "GPU",
    "threads": "Threads per run",
    "workers": "Runs at a time",
    "hostname": "Host",
    "executor": "Executor",
    "conformance": "Conformance of plug-ins",
}
_ELSEWHERE = ("git_commit", "git_dirty", "packages")


def newest_end(runs: pd.DataFrame) -> str:
    """Return when the last run ended: the report's date, so that the same runs always give the same report."""
    ends = runs["end"].dropna()
    starts = runs["start"].dropna()
    when = ends.max() if len(ends) else starts.max() if len(starts) else None
    return "unknown" if when is None else when.strftime("%Y-%m-%d %H:%M UTC")


def command(runs: Runs) -> str:
    """Return the command of the newest sweep that has one stored."""
    commands = [sweep.command for sweep in runs.sweeps if sweep.command]
    return commands[-1] if commands else f"harness run --grid {shlex.quote(runs.experiment + '.yaml')}"


def code(provenance: Mapping[str, Any]) -> str:
    """Return the commit and the state of the files: ``0123456789ab (uncommitted changes)``."""
    commit = provenance.get("git_commit")
    if provenance and "git_commit" not in provenance:
        return "unknown"
    if not commit:
        return "not from a git checkout"
    dirty = provenance.get("git_dirty")
    state = "uncommitted changes" if dirty else "clean" if dirty is False else "state of the files unknown"
    return f"{str(commit)[:12]} ({state})"


def packages(provenance: Mapping[str, Any]) -> str:
    """Return the names and versions of the packages."""
    found = provenance.get("packages")
    if not isinstance(found, Mapping):
        return ""
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()) if version)


def facts(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every stored fact, the known ones first and by their names, nested ones with dots."""
    yield "Code", code(provenance)
    if packages(provenance):
        yield "Packages", packages(provenance)
    for name, title in _NAMED.items():
        if name in provenance:
            yield title, "none" if provenance[name] is None else str(provenance[name])
    for name in sorted(set(provenance) - set(_NAMED) - set(_ELSEWHERE)):
        yield from _flat(name, provenance[name])


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for inner in sorted(value):
            yield from _flat(f"{name}.{inner}", value[inner])
    else:
        yield name, "none" if value is None else str(value)


def summary(provenance: Mapping[str, Any]) -> str:
    """Return hardware and threads in a line."""
    parts = [str(provenance[name]) for name in ("cpu", "gpu") if provenance.get(name)]
    threads = provenance.get("threads")
    if threads:
        parts.append(f"{threads} thread{'s' * (str(threads) != '1')} per run")
    workers = provenance.get("workers")
    if workers:
        parts.append(f"{workers} run{'s' * (str(workers) != '1')} at a time")
    return " · ".join(parts) or "unknown"


def settings(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the parameters of the runs: the common value, or all values of a swept one."""
    names = [name for name in frame.columns if "." in name and "/" not in name]
    rows = []
    for name in sorted(names):
        values = list(dict.fromkeys(str(value) for value in frame[name].dropna()))
        if values:
            rows.append((name, ", ".join(sorted(values)[:8]) + (", …" if len(values) > 8 else "")))
    return rows
