"""The grid of a sweep as it was when the sweep last started: what a grid that was edited since adds, removes, changes.

frozen.json has the text, and of every run its key, name and settings; former versions stay beside it as
frozen-0001.json and so on. With it stands what decided the runs besides the text (`made_by`), so that whoever reads the
same text in the same place knows the runs without building the grid, which takes torch.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.grid.yaml_nodes import SourceError, parse
from harness.storage import checksummed_file
from harness.storage.checksummed_file import Damaged
from harness.storage.plan_changes import changes, describe
from harness.storage.plan_file import Frozen, Planned, encode, load, snapshot
from reports.contract.files import write_atomically

if TYPE_CHECKING:
    from harness.grid.load import Grid


def freeze(
    folder: Path,
    grid: Grid,
    made_by: str | None = None,
    plugins: Sequence[Path] = (),
    costs: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
    """Store the grid if it is not stored yet; return what the user should know, line by line.

    Nothing is raised: a sweep can do without. `made_by` is what the function of this name returned before the registry
    was loaded; `costs` are the forecasts of an epoch of each setting.
    """
    path, lines = folder / "frozen.json", list[str]()
    try:
        old = _former(path, lines)
        if old is None:
            checksummed_file.write(path, encode(snapshot(grid, made_by, plugins, costs)))
        elif not _is(old, grid, made_by, plugins) or (costs and any(run.setting.cost is None for run in old.runs)):
            new = snapshot(grid, made_by, plugins, costs)
            found = changes(old, new)
            lines += describe(found)
            if found.any:
                checksummed_file.write(_next_version(folder), checksummed_file.read(path))
            checksummed_file.write(path, encode(new if found.any else replace(new, since=old.since)))
    except OSError as error:
        lines.append(
            f"{path}: expected to store the grid, got: {error.strerror}. Later changes of it will not be told."
        )
    return lines


def keep_text(path: Path, text: str, say: Callable[[str], None]) -> None:
    """Store a grid that came through a pipe, so that later commands have a file to name."""
    try:
        write_atomically(path, text)
    except OSError as error:
        say(f"{path}: expected to store the grid, got: {error.strerror}. Later commands need it as a file.")


def names(folder: Path, text: str, plugins: Sequence[Path] = ()) -> tuple[Planned, ...] | None:
    """Return the runs of a grid by its text alone, or None where the grid must be built to know them.

    Without plugins those that the sweep was run with are taken. Their text is compared, and never executed.
    """
    stored = planned(folder, text)
    if stored is None or stored.made_by is None:
        return None
    files = plugins or [Path(path) for path in stored.plugins]
    return stored.runs if stored.made_by == made_by(files) else None


def planned(folder: Path, text: str) -> Frozen | None:
    """Return the sweep as it was last run, if it was run with this text, whatever its plugins are now."""
    try:
        stored = load(folder / "frozen.json")
    except (OSError, Damaged):
        return None
    return stored if stored.text == text and stored.name == folder.name else None


def last_plugins(folder: Path) -> tuple[str, ...]:
    """Return the plugin files that the sweep in a folder was last run with, whatever its grid says now."""
    try:
        return load(folder / "frozen.json").plugins
    except (OSError, Damaged):
        return ()


def folder_of(out: Path, grid_path: Path, text: str) -> Path | None:
    """Return the folder of the sweep of a grid file, without building the grid; None where the name is not clear."""
    from harness.grid.naming import NAME, default_name

    try:
        entries = parse(text).value
    except SourceError:
        return None
    if not isinstance(entries, dict):
        return None
    name = entries["name"].value if "name" in entries else default_name(grid_path)
    return out / name if isinstance(name, str) and NAME.fullmatch(name) else None


def made_by(plugins: Sequence[Path] = ()) -> str | None:
    """Return a hash of all that makes runs of a text, or None where that cannot be known.

    It is of the sources of `harness` and `estimators`, the packages they read and check settings with, and the plugins.
    An installed plugin, and one that imports other code, can depend on anything.
    """
    if entry_points(group="harness.estimators") or not all(path.is_file() for path in plugins):
        return None
    try:
        texts = [path.read_bytes() for path in plugins]
        sources = [path for package in ("harness", "estimators") for path in sorted(_folder(package).rglob("*.py"))]
        parts = [part for path in sources for part in (path.name.encode(), path.read_bytes())]
    except OSError:
        return None
    if not all(map(_stands_alone, texts)):
        return None
    parts += [sys.version.encode(), *(version(name).encode() for name in ("torch", "pydantic", "pyyaml"))]
    digests = [hashlib.sha256(part).digest() for part in parts]
    return hashlib.sha256(b"".join([*digests, *sorted(hashlib.sha256(text).digest() for text in texts)])).hexdigest()


def _former(path: Path, lines: list[str]) -> Frozen | None:
    """Return the stored grid, if there is one to be read; one that is damaged is set aside, with a line about it."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except Damaged as damaged:
        kept = checksummed_file.set_aside(path)
        lines.append(f"{damaged} It is kept as {kept.name}; what changed in the grid before now is not known.")
        return None


def _next_version(folder: Path) -> Path:
    """Return where the version that is replaced now is kept."""
    numbers = [int(path.stem[7:]) for path in folder.glob("frozen-*.json") if path.stem[7:].isdecimal()]
    return folder / f"frozen-{max(numbers, default=0) + 1:04d}.json"


def _is(old: Frozen, grid: Grid, made_by: str | None, plugins: Sequence[Path]) -> bool:
    """Return whether this is the stored grid, without looking at settings: the keys are made of them."""
    files = tuple(str(path.absolute()) for path in plugins)
    same_words = (old.name, old.text, old.made_by, old.plugins) == (grid.name, grid.text, made_by, files)
    return same_words and [(r.key, r.name) for r in old.runs] == [(r.key, r.name) for r in grid.runs]


def _folder(package: str) -> Path:
    """Return the folder of a package, without importing it."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # noqa: S101, PT018  # it is installed with this package
    return Path(spec.origin).parent


def _stands_alone(text: bytes) -> bool:
    """Return whether a plugin imports nothing but what is hashed and the standard library."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in found} <= sys.stdlib_module_names | {"torch", "estimators", "harness"}
