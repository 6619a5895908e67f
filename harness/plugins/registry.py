"""The registry of a sweep: built-in estimators, installed entry points, and classes in files that the user names.

There is no global registry. Each process builds its own from the same files (`--plugin FILE`), so a spawned worker
has the same estimators as its parent.
"""

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
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from estimators import Estimator

    Registry = Mapping[str, type[Estimator]]

GROUP = "harness.estimators"
_HASH = "__harness_sha256__"  # set on the module of a plug-in: the hash of the text that was executed
_CHANGES = "__harness_changes__"  # also set on it: what its import changed in the process, in words
_RESERVED = frozenset({"name", "label", "source"})  # words of the grid: no parameter can have such a name


class PluginError(UserError):
    """A plug-in that was refused."""


def load_registry(plugin_files: Sequence[Path] = ()) -> Registry:
    """Return every estimator by its name: built-ins, entry points of the group GROUP, then the classes of the files.

    Raises PluginError for a file that is missing, fails to import or defines no estimator, and for a repeated name.
    """
    from estimators import REGISTRY

    registry = dict(REGISTRY)
    for entry_point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        _add(registry, _load_entry_point(entry_point), f"entry point {entry_point.name}")
    for path in dict.fromkeys(Path(file).resolve() for file in plugin_files):
        for cls in _classes(_import(path), path):
            _add(registry, cls, path.name)
    return MappingProxyType(registry)


def source_of(cls: type[Estimator]) -> str | None:
    """Return the SHA-256 of the file that defines a plug-in's class, as it was imported; None for a built-in."""
    if cls.__module__.partition(".")[0] == "estimators":
        return None
    executed = getattr(sys.modules.get(cls.__module__), _HASH, None)
    if executed is not None:
        return str(executed)
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return hashlib.sha256(f"{cls.__module__}.{cls.__qualname__}".encode()).hexdigest()


def import_notes(registry: Registry) -> list[str]:
    """Return a line for each plug-in whose import changed the state of the process. The change was put back."""
    from harness.process_state import change_note

    modules = dict.fromkeys(cls.__module__ for cls in registry.values())
    found = {name: getattr(sys.modules.get(name), _CHANGES, None) for name in modules}
    return [change_note(_file_name(name), changed) for name, changed in found.items() if changed]


def _file_name(module: str) -> str:
    return Path(getattr(sys.modules[module], "__file__", None) or module).name


def _add(registry: dict[str, type[Estimator]], cls: type[Estimator], origin: str) -> None:
    from estimators import parameters

    other = registry.setdefault(cls.name, cls)
    same_text = source_of(other) is not None and source_of(other) == source_of(cls)  # installed, and named as a file
    if other is not cls and (not same_text or other.__module__ == cls.__module__):
        raise PluginError(
            f"{origin}: expected a new estimator name, got {cls.name!r}, which {other.__module__}.{other.__name__} "
            "has. Change the class attribute name."
        )
    if taken := _RESERVED & parameters(cls).keys():
        raise PluginError(f"{origin}: {cls.name}: expected another name for the parameter {min(taken)!r}.")


def _load_entry_point(entry_point: EntryPoint) -> type[Estimator]:
    from harness.process_state import preserved

    origin = f"entry point {entry_point.name} = {entry_point.value}"
    try:
        with preserved() as changed:
            loaded = entry_point.load()
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        raise PluginError(f"{origin}: plugin failed to import: {_in_one_line(error)}") from error
    if not _is_estimator(loaded):
        raise PluginError(f"{origin}: expected a concrete subclass of estimators.Estimator, got {loaded!r}.")
    if changed:  # not when it was imported before
        setattr(sys.modules[loaded.__module__], _CHANGES, changed)
    return loaded  # type: ignore[no-any-return]


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
    setattr(module, _HASH, digest)
    sys.modules[name] = module  # dataclasses and inspect look the module up while it is executed
    try:
        with preserved() as changed:
            exec(loader.source_to_code(text, str(path)), module.__dict__)  # noqa: S102  # a plug-in is code to run
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        del sys.modules[name]
        line = _line_in(path, error)
        raise PluginError(f"{path.name}:{line}: plugin failed to import: {_in_one_line(error)}") from error
    setattr(module, _CHANGES, changed)
    return module


def _classes(module: ModuleType, path: Path) -> Iterator[type[Estimator]]:
    found = [item for item in vars(module).values() if _is_estimator(item) and item.__module__ == module.__name__]
    if not found:
        raise PluginError(f"{path.name}: expected at least one concrete subclass of estimators.Estimator, got none.")
    yield from dict.fromkeys(found)


def _is_estimator(item: object) -> bool:
    from estimators import Estimator

    return isinstance(item, type) and issubclass(item, Estimator) and not inspect.isabstract(item)


def _line_in(path: Path, error: BaseException) -> int:
    """Return the line of the plug-in's own file that the error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path) and frame.lineno), 1)


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
