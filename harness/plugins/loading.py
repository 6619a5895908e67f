"""Loading the classes of plug-ins: from files that the user names, and from entry points of installed packages."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.plugins import user_modules
from harness.plugins.identity import IDENTITY, identity_of, sha256
from harness.plugins.imports import Imports, read_imports

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.datasets import ImageSource
    from harness.tasks import Task

    PluginClass = type[Estimator] | type[Task] | type[ImageSource]

ESTIMATORS, TASKS, DATASETS = "harness.estimators", "harness.tasks", "harness.datasets"
"""The groups of entry points, which also name what a plug-in's class is."""
CHANGES = "__harness_changes__"
"""The attribute of a plug-in's module with what its import changed in the process, in words."""


FILES = "__harness_files__"
"""The attribute of a plug-in's module with the files of the user's own modules that it imports."""
UNSEEN = "__harness_unseen__"
"""The attribute of a plug-in's module with the own modules that its identity does not cover."""


class PluginError(UserError):
    """A plug-in that was refused."""


def installed() -> list[EntryPoint]:
    """Return the entry points of installed plug-ins, in a fixed order."""
    found = [point for group in (ESTIMATORS, TASKS, DATASETS) for point in entry_points(group=group)]
    return sorted(found, key=lambda point: (point.group, point.name, point.value))


def classes_of_file(path: Path, folders: dict[str, Path]) -> Iterator[tuple[str, PluginClass]]:
    """Import a file; yield the group and the class of each estimator, task and data set that it defines.

    `folders` has where earlier files found the modules beside them, by name, and gets those of this file.

    Raises PluginError for a file that is missing, fails to import or defines none, and for modules beside it whose
    names others have.
    """
    text = _read(path)
    imports = read_imports(text, path.parent)
    _check_names(path, imports, folders)
    user_modules.make_importable(imports, path.parent)
    module = _import(path, text, imports)
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    grouped = [(group, cls) for cls in dict.fromkeys(own) if (group := _group(cls)) is not None]
    unfinished = [cls for cls in own if _lacks(cls) and ("name" in vars(cls) or not grouped)]
    if unfinished:  # an abstract class beside a concrete one may be its base, if it has no name
        raise PluginError(_refuse_unfinished(path, unfinished[0]))
    if not grouped:
        *others, last = (base for base, _ in _bases().values())
        wanted = f"{', '.join(others)} or {last}"
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
    notes = [change_note(_file_name(name), changed) for name, changed in found.items() if changed]
    unseen = {name: getattr(sys.modules.get(name), UNSEEN, None) for name in modules}
    return notes + [_unseen_note(_file_name(name), others) for name, others in unseen.items() if others]


def _unseen_note(who: str, names: Sequence[str]) -> str:
    """Return a note about own modules that the identity of a plug-in does not cover."""
    listed = f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
    return (
        f"{who} loads {listed} by a computed name: an edit of that makes no new runs. Name it in an import statement to"
        " change this."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise PluginError(f"{path}: expected a readable Python file, got '{reason}'.") from error


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


def _file_name(module: str) -> str:
    return Path(getattr(sys.modules[module], "__file__", None) or module).name


def _import(path: Path, text: bytes, imports: Imports) -> ModuleType:
    """Import a file as a module named by its content: the same text at the same path is executed once a process."""
    from harness.process_state import preserved

    digest = identity_of(text, imports.own.values())
    name = f"harness_plugin_{digest[:16]}_{sha256(str(path).encode('utf-8', 'surrogateescape'))[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # noqa: S101  # a loader was given
    module, before = module_from_spec(spec), set(sys.modules)
    sys.modules[name] = module  # dataclasses and inspect look the module up while it is executed
    try:
        with preserved() as changed, _no_bytecode():
            exec(loader.source_to_code(text, str(path)), module.__dict__)  # noqa: S102  # a plug-in is code to run
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        del sys.modules[name]
        line = _line_in(path, error)
        where = _line_of_module(error, imports)
        raise PluginError(f"{path.name}:{line}: plugin failed to import: {_in_one_line(error)}{where}") from error
    finally:
        now = read_imports(text, path.parent)  # it may have changed sys.path
        user_modules.remember(now)
    setattr(module, FILES, tuple(str(one.path) for one in now.own.values() if one.path))
    setattr(module, IDENTITY, identity_of(text, now.own.values()))
    setattr(module, CHANGES, changed)
    setattr(module, UNSEEN, user_modules.unseen(before, now))
    return module


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no bytecode of the user's modules: it is taken for current if an edit follows within a second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


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


def _line_in(path: Path, error: BaseException) -> int:
    """Return the line of the plug-in's own file that the error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path) and frame.lineno), 1)


def _line_of_module(error: BaseException, imports: Imports) -> str:
    """Return the line of the module beside a plug-in that an error came from, in brackets; empty if from none."""
    files = {str(own.path) for own in imports.own.values()}
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    found = [f" ({Path(file).name}:{line})" for file, line in frames if file in files]
    return found[-1] if found else ""


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return f"{line}. Put the module beside the plug-in, add its folder to PYTHONPATH, or install it"
    if isinstance(error, ImportError) and "relative import" in text:
        return f"{line}. Import the modules beside a plug-in by their names, as in `import helper`"
    return line
