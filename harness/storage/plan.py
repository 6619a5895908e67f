"""The plan of a sweep: its grid as it was when the sweep last started.

frozen.json holds the text of the grid and the key, name and settings of each run. Older versions are kept beside it as
frozen-0001.json and so on. The plan's fingerprint is a hash of what the runs depend on besides the text. While
text and fingerprint stay the same, the runs are known without building the grid, which would load torch.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness import atomic_file
from harness.datasets.own import is_own
from harness.grid.yaml_nodes import SourceError, parse
from harness.plugins.identity import identity_of
from harness.plugins.imports import read_imports
from harness.plugins.loading import GROUPS
from harness.provenance import source_sha256
from harness.storage import checksummed_file
from harness.storage.checksummed_file import DamagedError
from harness.storage.plan_changes import Changes, compare_plans, describe
from harness.storage.plan_file import OtherFormatError, Plan, PlannedRun, make_plan, read_plan, to_bytes

if TYPE_CHECKING:
    from harness.grid.load import Grid

FILE_NAME = "frozen.json"


def save_plan(
    folder: Path,
    grid: Grid,
    fingerprint: str | None = None,
    plugins: Sequence[Path] = (),
    epoch_costs: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
    """Save the plan of a grid if it changed. Return the lines to show the user.

    No error is raised, because a sweep can do without its plan. `fingerprint` must have been taken before the registry
    was loaded. `epoch_costs` are the forecasts of each setting.
    """
    path, lines = folder / FILE_NAME, list[str]()
    if any(is_own(run.data.name) for run in grid.runs):
        fingerprint = None  # the runs depend on images that may be edited
    try:
        old = _saved_plan(path, lines)
        if old is None:
            checksummed_file.write(path, to_bytes(make_plan(grid, fingerprint, plugins, epoch_costs)))
        elif not _is_unchanged(old, grid, fingerprint, plugins) or (epoch_costs and _lacks_costs(old)):
            new = make_plan(grid, fingerprint, plugins, epoch_costs)
            found = compare_plans(old, new)
            is_edited = found.any and not (grid.growth is not None and _has_grown(found))
            lines += describe(found) if is_edited else []
            if is_edited:
                checksummed_file.write(_next_version(folder), checksummed_file.read(path))
            checksummed_file.write(path, to_bytes(new if is_edited else replace(new, saved_at=old.saved_at)))
    except OSError as error:
        lines.append(f"{path}: the grid could not be saved ({error.strerror}). Later edits will not be reported.")
    return lines


def save_grid_text(path: Path, text: str, say: Callable[[str], None]) -> None:
    """Save a grid that came through a pipe, so that later commands have a file to name."""
    try:
        atomic_file.write(path, text.encode())
    except OSError as error:
        say(f"{path}: the grid could not be saved ({error.strerror}). Later commands need it as a file.")


def planned_runs(folder: Path, text: str, plugins: Sequence[Path] = ()) -> tuple[PlannedRun, ...] | None:
    """Return the runs of a grid by its text alone, or None if the grid must be built to know them.

    Without `plugins`, those of the last run are assumed. Plug-ins are compared by their text and never executed.
    """
    plan = plan_of_text(folder, text)
    if plan is None or plan.fingerprint is None:
        return None
    files = plugins or [Path(path) for path in plan.plugins]
    return plan.runs if plan.fingerprint == plan_fingerprint(files) else None


def plan_of_text(folder: Path, text: str) -> Plan | None:
    """Return the saved plan if it has this text, whatever became of its plug-ins since; else None."""
    try:
        plan = read_plan(folder / FILE_NAME)
    except (OSError, DamagedError):
        return None
    return plan if plan.text == text and plan.name == folder.name else None


def last_plugins(folder: Path) -> tuple[str, ...]:
    """Return the plug-in files of the last run of a sweep, even if its grid was edited since."""
    try:
        return read_plan(folder / FILE_NAME).plugins
    except (OSError, DamagedError):
        return ()


def sweep_folder(out: Path, grid_path: Path, text: str) -> Path | None:
    """Return the folder of a grid's sweep without building the grid, or None if the text does not tell its name."""
    from harness.grid.name_and_texts import NAME_PATTERN, default_name

    try:
        entries = parse(text).value
    except SourceError:
        return None
    if not isinstance(entries, dict):
        return None
    name = entries["name"].value if "name" in entries else default_name(grid_path)
    return out / name if isinstance(name, str) and NAME_PATTERN.fullmatch(name) else None


def plan_fingerprint(plugins: Sequence[Path] = ()) -> str | None:
    """Return a hash of all that turns a grid's text into runs, or None if that cannot be known.

    It covers the sources of `harness` and `estimators`, the packages that read and check settings, the plug-ins and the
    modules of the user's own that they import. An installed plug-in, or one that imports installed packages or
    computes what it imports, can depend on anything. `save_plan` keeps none of a grid with own images.
    """
    if any(entry_points(group=group) for group in GROUPS):
        return None
    if not all(path.is_file() for path in plugins):  # a pipe is read once
        return None
    try:
        identities = [_identity(path) for path in plugins]
        source = source_sha256()
    except OSError:
        return None
    if None in identities:
        return None
    parts = [source, sys.version, *map(version, ("torch", "pydantic", "pyyaml"))]
    return hashlib.sha256("\n".join([*parts, *sorted(map(str, identities))]).encode()).hexdigest()


def _saved_plan(path: Path, lines: list[str]) -> Plan | None:
    """Return the saved plan, if any. One that cannot be read is renamed, and `lines` get a line about it."""
    try:
        return read_plan(path)
    except FileNotFoundError:
        return None
    except OtherFormatError as other:
        kept = path.rename(_next_version(path.parent))
        lines.append(f"{other} It is kept as {kept.name}; earlier edits of the grid are not reported.")
    except DamagedError as damaged:
        kept = checksummed_file.rename_damaged(path)
        lines.append(f"{damaged} It is kept as {kept.name}; earlier edits of the grid are not reported.")
    return None


def _next_version(folder: Path) -> Path:
    """Return the path for the version that is replaced now."""
    numbers = [int(path.stem[7:]) for path in folder.glob("frozen-*.json") if path.stem[7:].isdecimal()]
    return folder / f"frozen-{max(numbers, default=0) + 1:04d}.json"


def _is_unchanged(old: Plan, grid: Grid, fingerprint: str | None, plugins: Sequence[Path]) -> bool:
    """Return whether the saved plan is the grid's. Settings need not be compared, since keys are hashes of them."""
    files = tuple(str(path.absolute()) for path in plugins)
    same_head = (old.name, old.text, old.fingerprint, old.plugins) == (grid.name, grid.text, fingerprint, files)
    return same_head and [(r.key, r.name) for r in old.runs] == [(r.key, r.name) for r in grid.runs]


def _has_grown(found: Changes) -> bool:
    """Return whether a plan differs by what results decide alone: its text is the same, and no run was changed."""
    return not (found.text_differs or found.changed or found.relabelled or (found.added and found.removed))


def _lacks_costs(plan: Plan) -> bool:
    return any(run.setting.epoch_cost is None for run in plan.runs)


def _identity(plugin: Path) -> str | None:
    """Return the identity of a plug-in by its text, or None if it depends on more than the fingerprint covers."""
    text = plugin.read_bytes()
    imports = read_imports(text, plugin.resolve().parent)
    return None if imports.others or imports.is_computed else identity_of(text, imports.own.values())
