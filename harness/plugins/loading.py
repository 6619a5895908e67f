"""Loading the classes of plug-ins: from files that the user names, and from entry points of installed packages."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from harness.plugins import user_modules
from harness.plugins.file_import import CHANGES, PluginError, import_error, import_file
from harness.plugins.identity import source_of
from harness.plugins.imports import Imports, read_imports

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.datasets import ImageSource
    from harness.tasks import Task

    PluginClass = type[Estimator] | type[Task] | type[ImageSource]

ESTIMATORS, TASKS, DATASETS = "harness.estimators", "harness.tasks", "harness.datasets"
GROUPS = (ESTIMATORS, TASKS, DATASETS)
"""The groups of entry points, which also name what a plug-in's class is."""


def installed() -> list[EntryPoint]:
    """Return the entry points of installed plug-ins, in a fixed order."""
    found = [point for group in GROUPS for point in entry_points(group=group)]
    return sorted(found, key=lambda point: (point.group, point.name, point.value))


def classes_of_file(path: Path, folders: dict[str, Path]) -> Iterator[tuple[str, PluginClass]]:
    """Import a file; yield the group and the class of each estimator, task and data set that it defines.

    `folders` has where earlier files found the modules beside them, by name, and gets those of this file.

    Raises PluginError for a file that is missing, fails to import or defines none, and for modules beside it whose
    names others have.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise PluginError(f"{path}: expected a readable Python file, got '{reason}'.") from error
    imports = read_imports(text, path.parent)
    _check_names(path, imports, folders)
    user_modules.make_importable(imports, path.parent)
    module = import_file(path, text, imports)
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    grouped = [(group, cls) for cls in dict.fromkeys(own) if (group := _group(cls)) is not None]
    unfinished = [cls for cls in own if _lacks(cls) and ("name" in vars(cls) or not grouped)]
    if unfinished:  # an abstract class beside a concrete one may be its base, if it has no name
        raise PluginError(_refuse_unfinished(path, unfinished[0]))
    if not grouped:
        *others, last = (base for base, _ in _bases().values())
        wanted = f"{', '.join(others)} or {last}"
        taken = [one for one in vars(module).values() if isinstance(one, type) and _group(one) and source_of(one)]
        hint = f" {taken[0].__name__} is imported: name its own file." if taken else ""
        raise PluginError(f"{path.name}: expected at least one concrete subclass of {wanted}, got none.{hint}")
    yield from grouped


def load_entry_point(entry_point: EntryPoint) -> PluginClass:
    """Return the class of an entry point. Raises PluginError if it fails to import or is of another kind."""
    from harness.process_state import preserved

    origin = f"entry point {entry_point.name} = {entry_point.value}"
    try:
        with preserved() as changed:
            loaded = entry_point.load()
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        raise PluginError(f"{origin}: plugin failed to import: {import_error(error)}") from error
    if not isinstance(loaded, type) or _group(loaded) != entry_point.group:
        wanted = _bases()[entry_point.group][0]
        raise PluginError(f"{origin}: expected a concrete subclass of {wanted}, got {loaded!r}.")
    if changed:  # not when it was imported before
        setattr(sys.modules[loaded.__module__], CHANGES, changed)
    return loaded


def _check_names(path: Path, imports: Imports, folders: dict[str, Path]) -> None:
    """Refuse modules beside a plug-in whose names are those of other modules: Python knows one of each name."""
    for name, file in imports.hidden.items():
        raise PluginError(
            f"{path.name}: expected a name of its own for the module {name!r} in {path.parent}, got that of an"
            f" installed one, {file}. Rename yours."
        )
    for name in sorted(imports.beside):
        other = folders.setdefault(name, path.parent)
        if other != path.parent:
            raise PluginError(
                f"{path.name}: expected modules of different names beside the plug-ins, got {name!r} in {other} and in"
                f" {path.parent}. Rename one, or use one sweep for each plug-in."
            )


def _bases() -> Mapping[str, tuple[str, type]]:
    """Return the base class of each group, after its name for users."""
    from estimators import Estimator
    from harness.datasets import ImageSource
    from harness.tasks import Task

    return {
        ESTIMATORS: ("estimators.Estimator", Estimator),
        TASKS: ("harness.tasks.Task", Task),
        DATASETS: ("harness.datasets.ImageSource", ImageSource),
    }


def _group(cls: type) -> str | None:
    """Return the group of a concrete class; None for any other class."""
    if inspect.isabstract(cls):
        return None
    return next((group for group, (_, base) in _bases().items() if issubclass(cls, base)), None)


def _lacks(cls: type) -> list[str]:
    """Return the methods that a subclass of the bases still has to write."""
    if not any(issubclass(cls, base) for _, base in _bases().values()):
        return []
    return sorted(name for name in dir(cls) if getattr(getattr(cls, name, None), "__isabstractmethod__", False))


def _refuse_unfinished(path: Path, cls: type) -> str:
    """Return the line for a class that lacks a method."""
    methods = _lacks(cls)
    try:
        line = f":{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        line = ""
    wanted = f"the methods {', '.join(methods)}" if len(methods) > 1 else f"the method {methods[0]}"
    arguments = ", ".join(inspect.signature(getattr(cls, methods[0])).parameters)
    what_to_do = f"Write def {methods[0]}({arguments})."
    return f"{path.name}{line}: {cls.__name__}: expected {wanted}, got a class without. {what_to_do}"
