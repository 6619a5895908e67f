"""Loading the classes of plug-ins: from files that the user names, and from entry points of installed packages."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.plugins.identity import IDENTITY

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.tasks import Task

    PluginClass = type[Estimator] | type[Task]

ESTIMATORS, TASKS = "harness.estimators", "harness.tasks"
"""The groups of entry points, which also name what a plug-in's class is."""
CHANGES = "__harness_changes__"
"""The attribute of a plug-in's module with what its import changed in the process, in words."""


class PluginError(UserError):
    """A plug-in that was refused."""


def installed() -> list[EntryPoint]:
    """Return the entry points of installed plug-ins, in a fixed order."""
    found = [point for group in (ESTIMATORS, TASKS) for point in entry_points(group=group)]
    return sorted(found, key=lambda point: (point.group, point.name, point.value))


def classes_of_file(path: Path) -> Iterator[tuple[str, PluginClass]]:
    """Import a file; yield the group and the class of each estimator and task that it defines.

    Raises PluginError for a file that is missing, fails to import or defines none.
    """
    module = _import(path)
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    grouped = [(group, cls) for cls in dict.fromkeys(own) if (group := _group(cls)) is not None]
    unfinished = [cls for cls in own if _lacks(cls) and ("name" in vars(cls) or not grouped)]
    if unfinished:  # an abstract class beside a concrete one may be its base, if it has no name
        raise PluginError(_refuse_unfinished(path, unfinished[0]))
    if not grouped:
        wanted = " or ".join(base for base, _ in _bases().values())
        raise PluginError(f"{path.name}: expected at least one concrete subclass of {wanted}, got none.")
    yield from grouped


def load_entry_point(entry_point: EntryPoint) -> PluginClass:
    """Return the class of an entry point. Raises PluginError if it fails to import or is of another kind."""
    from harness.process_state import preserved

    origin = f"entry point {entry_point.name} = {entry_point.value}"
    try:
        with preserved() as changed:
            loaded = entry_point.load()
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        raise PluginError(f"{origin}: plugin failed to import: {_in_one_line(error)}") from error
    if not isinstance(loaded, type) or _group(loaded) != entry_point.group:
        wanted = _bases()[entry_point.group][0]
        raise PluginError(f"{origin}: expected a concrete subclass of {wanted}, got {loaded!r}.")
    if changed:  # not when it was imported before
        setattr(sys.modules[loaded.__module__], CHANGES, changed)
    return loaded


def import_notes(classes: Sequence[type]) -> list[str]:
    """Return a line for each plug-in whose import changed the state of the process. The change was put back."""
    from harness.process_state import change_note

    modules = dict.fromkeys(cls.__module__ for cls in classes)
    found = {name: getattr(sys.modules.get(name), CHANGES, None) for name in modules}
    return [change_note(_file_name(name), changed) for name, changed in found.items() if changed]


def _file_name(module: str) -> str:
    return Path(getattr(sys.modules[module], "__file__", None) or module).name


def _import(path: Path) -> ModuleType:
    """Import a file as a module named by its content: the same text at the same path is executed once a process."""
    try:
        text = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise PluginError(f"{path}: expected a readable Python file, got '{reason}'.") from error
    from harness.process_state import preserved

    digest = hashlib.sha256(text).hexdigest()
    path_digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()
    name = f"harness_plugin_{digest[:16]}_{path_digest[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # noqa: S101  # a loader was given
    module = module_from_spec(spec)
    setattr(module, IDENTITY, digest)
    sys.modules[name] = module  # dataclasses and inspect look the module up while it is executed
    try:
        with preserved() as changed:
            exec(loader.source_to_code(text, str(path)), module.__dict__)  # noqa: S102  # a plug-in is code to run
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        del sys.modules[name]
        line = _line_in(path, error)
        raise PluginError(f"{path.name}:{line}: plugin failed to import: {_in_one_line(error)}") from error
    setattr(module, CHANGES, changed)
    return module


def _bases() -> Mapping[str, tuple[str, type]]:
    """Return the base class of each group, after its name for users."""
    from estimators import Estimator
    from harness.tasks import Task

    return {ESTIMATORS: ("estimators.Estimator", Estimator), TASKS: ("harness.tasks.Task", Task)}


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


def _line_in(path: Path, error: BaseException) -> int:
    """Return the line of the plug-in's own file that the error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path) and frame.lineno), 1)


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
