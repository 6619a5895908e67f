"""The registry of a sweep: built-in estimators and tasks, and estimators, tasks and data sets of plug-ins.

Plug-ins are installed entry points and classes in files of the user.

There is no global registry. Each process builds its own from the same files (`--plugin FILE`), so a spawned worker
has the same classes as its parent.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from harness.plugins import file_import, loading
from harness.plugins.file_import import PluginError
from harness.plugins.identity import source_of

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.datasets import ImageSource
    from harness.tasks import Task

__all__ = ["PluginError", "Registry", "datasets_of", "import_notes", "load_registry", "source_of", "tasks_of"]

_RESERVED = frozenset({"name", "label", "source"})  # words of the grid: no parameter can have such a name
_KINDS = {loading.ESTIMATORS: "estimator", loading.TASKS: "task", loading.DATASETS: "data set"}
_NO_DATASETS: Mapping[str, type[ImageSource]] = MappingProxyType({})


@final
class Registry(Mapping[str, "type[Estimator]"]):
    """Estimators by their names; `tasks` and `datasets` have tasks and own images by theirs. It cannot be changed."""

    def __init__(
        self,
        estimators: Mapping[str, type[Estimator]],
        tasks: Mapping[str, type[Task]],
        datasets: Mapping[str, type[ImageSource]] = _NO_DATASETS,
        of_files: Sequence[loading.PluginClass] = (),
    ) -> None:
        self._estimators = dict(estimators)
        self.tasks: Mapping[str, type[Task]] = MappingProxyType(dict(tasks))
        self.datasets: Mapping[str, type[ImageSource]] = MappingProxyType(dict(datasets))
        self.of_files: Sequence[loading.PluginClass] = tuple(of_files)
        """The classes that the user's files define, in order."""

    def __getitem__(self, name: str) -> type[Estimator]:
        return self._estimators[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._estimators)

    def __len__(self) -> int:
        return len(self._estimators)


def load_registry(plugin_files: Sequence[Path] = ()) -> Registry:
    """Return every estimator, task and data set: built-ins, entry points, then the classes of the files.

    Raises PluginError for a file that is missing, fails to import or defines none, and for a repeated name.
    """
    from estimators import REGISTRY
    from harness.tasks.registry import TASKS

    found: dict[str, dict[str, Any]] = {
        loading.ESTIMATORS: dict(REGISTRY),
        loading.TASKS: dict(TASKS),
        loading.DATASETS: {},
    }
    for entry_point in loading.installed():
        _add(found, entry_point.group, loading.load_entry_point(entry_point), f"entry point {entry_point.name}")
    folders: dict[str, Path] = {}
    of_files: list[loading.PluginClass] = []
    for path in dict.fromkeys(Path(file).resolve() for file in plugin_files):
        for group, cls in loading.classes_of_file(path, folders):
            _add(found, group, cls, path.name)
            of_files.append(cls)
    return Registry(found[loading.ESTIMATORS], found[loading.TASKS], found[loading.DATASETS], of_files)


def tasks_of(registry: Mapping[str, type[Estimator]]) -> Mapping[str, type[Task]]:
    """Return the tasks of a registry; the built-in ones for a plain mapping of estimators."""
    from harness.tasks.registry import TASKS

    return registry.tasks if isinstance(registry, Registry) else TASKS


def datasets_of(registry: Mapping[str, type[Estimator]]) -> Mapping[str, type[ImageSource]]:
    """Return the data sets of the plug-ins in a registry; none for a plain mapping of estimators."""
    return registry.datasets if isinstance(registry, Registry) else _NO_DATASETS


def import_notes(registry: Mapping[str, type[Estimator]]) -> list[str]:
    """Return a line for each plug-in whose import changed the state of the process. The change was put back."""
    return file_import.import_notes([*registry.values(), *tasks_of(registry).values(), *datasets_of(registry).values()])


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
