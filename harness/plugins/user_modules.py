"""Modules beside a plug-in: they can be imported from any current folder, and an edited one is imported anew.

Python knows a module by its name alone. So plug-ins of one registry cannot have different modules of one name, and
a later registry of the process replaces those of an earlier one; objects of the earlier one keep what they imported.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import final

from harness.plugins.identity import sha256
from harness.plugins.imports import Imports, is_installed, read_imports

_TEXT = "__harness_text__"  # set on an imported module: the SHA-256 of the text that was executed


@final
class _BesidePlugins(MetaPathFinder):
    """Finds what plug-ins import from their folders, before `sys.path` is searched."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.known = set[str]()  # the names of all own modules of the plug-ins so far

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder = self.folders.get(fullname) if path is None else None
        return None if folder is None else PathFinder.find_spec(fullname, [str(folder)], target)


_FINDER = _BesidePlugins()


def make_importable(imports: Imports, folder: Path) -> None:
    """Let a plug-in import what is in its folder. Modules that were edited since they were imported are forgotten.

    The folder stays at the end of `sys.path`, for imports that no statement names.
    """
    importlib.invalidate_caches()
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.folders |= dict.fromkeys(imports.beside, folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    loaded = {name: module for name in imports.own if (module := sys.modules.get(name)) is not None}
    if any(_is_stale(imports, name, module) for name, module in loaded.items()):
        for name in loaded:  # all of them, since they hold each other's objects
            del sys.modules[name]
    _FINDER.known |= imports.own.keys()


def remember(imports: Imports) -> None:
    """Note on every module that was imported which text it had."""
    for name, own in imports.own.items():
        if (module := sys.modules.get(name)) is not None and _TEXT not in vars(module):
            setattr(module, _TEXT, sha256(own.content))


def files_to_send(plugins: Sequence[Path]) -> tuple[tuple[str, bytes], ...]:
    """Return the files of all own modules of plug-ins: paths below one folder for all of them, and contents."""
    found: dict[str, bytes] = {}
    for path in plugins:
        own = read_imports(path.read_bytes(), path.parent).own.values()
        found |= {str(module.relative): module.content for module in own if module.path is not None}
    return tuple(sorted(found.items()))


def unseen(before: set[str], imports: Imports) -> list[str]:
    """Return the user's own modules that were imported since, though no statement names them."""
    new = [name for name in sys.modules.keys() - before - imports.own.keys() if not name.startswith("harness_plugin_")]
    files = {name: getattr(sys.modules[name], "__file__", None) for name in new}
    return sorted(name for name, file in files.items() if file and not is_installed(Path(file)))


def _is_stale(imports: Imports, name: str, module: ModuleType) -> bool:
    """Return whether a loaded module is another than the one that would be imported now."""
    own, text = imports.own[name], getattr(module, _TEXT, None)
    file = getattr(module, "__file__", None)
    if own.path is not None and file is not None and Path(file).resolve() != own.path.resolve():
        return True
    if text is None:  # it was imported inside a function of a plug-in, so its text is not known, or by others
        return name in _FINDER.known
    return bool(text != sha256(own.content))
