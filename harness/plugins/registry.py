"""The registry of a sweep: built-in estimators and tasks, installed entry points, and classes in files of the user.

There is no global registry. Each process builds its own from the same files (`--plugin FILE`), so a spawned worker
has the same classes as its parent.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from harness.plugins import loading
from harness.plugins.identity import source_of
from harness.plugins.loading import PluginError

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.tasks import Task

__all__ = ["PluginError", "Registry", "import_notes", "load_registry", "source_of", "tasks_of"]

_RESERVED = frozenset({"name", "label", "source"})  # words of the grid: no parameter can have such a name
_KINDS = {loading.ESTIMATORS: "estimator", loading.TASKS: "task"}


@final
class Registry(Mapping[str, "type[Estimator]"]):
    """Estimators by their names and, in `tasks`, tasks by theirs. It cannot be changed."""

    def __init__(self, estimators: Mapping[str, type[Estimator]], tasks: Mapping[str, type[Task]]) -> None:
        self._estimators = dict(estimators)
        self.tasks: Mapping[str, type[Task]] = MappingProxyType(dict(tasks))

    def __getitem__(self, name: str) -> type[Estimator]:
        return self._estimators[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._estimators)

    def __len__(self) -> int:
        return len(self._estimators)


def load_registry(plugin_files: Sequence[Path] = ()) -> Registry:
    """Return every estimator and task: built-ins, entry points, then the classes of the files.

    Raises PluginError for a file that is missing, fails to import or defines neither, and for a repeated name.
    """
    from estimators import REGISTRY
    from harness.tasks.registry import TASKS

    found: dict[str, dict[str, Any]] = {loading.ESTIMATORS: dict(REGISTRY), loading.TASKS: dict(TASKS)}
    for entry_point in loading.installed():
        _add(found, entry_point.group, loading.load_entry_point(entry_point), f"entry point {entry_point.name}")
    folders: dict[str, Path] = {}
    for path in dict.fromkeys(Path(file).resolve() for file in plugin_files):
        for group, cls in loading.classes_of_file(path, folders):
            _add(found, group, cls, path.name)
    return Registry(found[loading.ESTIMATORS], found[loading.TASKS])


def tasks_of(registry: Mapping[str, type[Estimator]]) -> Mapping[str, type[Task]]:
    """Return the tasks of a registry; the built-in ones for a plain mapping of estimators."""
    from harness.tasks.registry import TASKS

    return registry.tasks if isinstance(registry, Registry) else TASKS


def import_notes(registry: Mapping[str, type[Estimator]]) -> list[str]:
    """Return a line for each plug-in whose import changed the state of the process. The change was put back."""
    return loading.import_notes([*registry.values(), *tasks_of(registry).values()])


def _add(found: dict[str, dict[str, Any]], group: str, cls: loading.PluginClass, origin: str) -> None:
    other = found[group].setdefault(cls.name, cls)
    same_text = source_of(other) is not None and source_of(other) == source_of(cls)  # installed, and named as a file
    if other is not cls and (not same_text or other.__module__ == cls.__module__):
        raise PluginError(
            f"{origin}: expected a new {_KINDS[group]} name, got {cls.name!r}, which {other.__module__}."
            f"{other.__name__} has. Change the class attribute name."
        )
    if taken := _RESERVED & inspect.signature(cls).parameters.keys():
        raise PluginError(f"{origin}: {cls.name}: expected another name for the parameter {min(taken)!r}.")
