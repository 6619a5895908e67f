"""The user's own modules that a plug-in imports, found by reading its import statements; nothing is executed.

Own are the modules beside the plug-in, and those found through `sys.path`, but for the standard library, this project
and installed distributions. Statements inside functions and branches count, and so do the modules' own imports.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path, PurePosixPath

from harness.provenance import PACKAGE

_PROJECT = frozenset({"estimators", "harness", "reports"})
_KNOWN = sys.stdlib_module_names | _PROJECT | {"torch"}
_COMPUTING = ("import_module", "__import__")


@dataclass(frozen=True)
class OwnModule:
    """A module of the user, by its full name, with the bytes of its file; a namespace package has no file."""

    name: str
    path: Path | None
    content: bytes = b""
    is_package: bool = False

    @property
    def relative(self) -> PurePosixPath:
        """Where the file is, below the folder in which the module is looked for."""
        parts, suffix = self.name.split("."), "" if self.path is None else "".join(self.path.suffixes)
        return PurePosixPath(*parts, f"__init__{suffix}") if self.is_package else PurePosixPath(*parts).with_name(
            parts[-1] + suffix
        )  # fmt: skip


@dataclass
class Imports:
    """What the import statements of a plug-in and of its own modules name."""

    own: dict[str, OwnModule] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)
    """The top-level names of own modules that are in the folder of the plug-in."""
    others: set[str] = field(default_factory=set)
    """Top-level names that are neither own, nor of the standard library, nor of this project, nor torch."""
    hidden: dict[str, str] = field(default_factory=dict)
    """Top-level names that are both beside the plug-in and of an installed distribution -> the latter's file."""
    is_computed: bool = False
    """Whether some imports are computed, or `sys.path` is used, so that reading the statements is not enough."""


def read_imports(text: bytes, folder: Path | None, package: str = "", own_package: str | None = None) -> Imports:
    """Return what a Python text imports. Text that is no Python imports nothing.

    `folder` is where the modules beside it are, None for an installed one; `package` is what its relative imports start
    from; `own_package` is a top-level name that counts as the user's own wherever it is.
    """
    found, finder = Imports(), _Finder(folder, own_package)
    waiting: list[tuple[bytes, str]] = [(text, package)]
    while waiting:
        statements = _statements(*waiting.pop())
        found.is_computed |= statements.is_computed
        for name in sorted(statements.names):
            waiting += _add(found, finder, name)
    return found


def _add(found: Imports, finder: _Finder, name: str) -> Iterator[tuple[bytes, str]]:
    """Add a module and its packages to what was found; yield the texts of those that are new."""
    top = name.partition(".")[0]
    if top in _KNOWN:
        return
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        full = ".".join(parts[:i])
        spec = finder.find(full)
        if spec is None or not finder.is_own(spec, top):
            found.others |= {top} if i == 1 else set()  # else it is a name that a module defines
            return
        if i == 1 and finder.is_beside(full):
            found.beside.add(top)
            if hidden := finder.installed_file(full):
                found.hidden[full] = hidden
        if full not in found.own:
            own = found.own[full] = _read(full, spec)
            if own.path is not None and own.path.suffix == ".py":
                yield own.content, full if own.is_package else full.rpartition(".")[0]


def _read(name: str, spec: ModuleSpec) -> OwnModule:
    path = Path(spec.origin) if spec.has_location and spec.origin else None
    is_package = spec.submodule_search_locations is not None
    try:
        return OwnModule(name, path, b"" if path is None else path.read_bytes(), is_package)
    except OSError:  # importing it reports the reason
        return OwnModule(name, path, b"", is_package)


class _Finder:
    """Finds modules as the import system does for a plug-in: first in its folder, then in `sys.path`."""

    def __init__(self, folder: Path | None, own_package: str | None) -> None:
        self._folder, self._own_package = folder, own_package
        self._specs: dict[str, ModuleSpec | None] = {}
        self._beside = set[str]()

    def find(self, name: str) -> ModuleSpec | None:
        """Return how a module would be imported; None if it cannot be."""
        if name not in self._specs:
            self._specs[name] = self._find(name)
        return self._specs[name]

    def _find(self, name: str) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if parent:
            package = self.find(parent)
            places = None if package is None else package.submodule_search_locations
            return None if places is None else PathFinder.find_spec(name, list(places))
        beside = None if self._folder is None else PathFinder.find_spec(name, [str(self._folder)])
        if beside is not None and beside.has_location:
            self._beside.add(name)
            return beside
        try:
            elsewhere = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            elsewhere = None
        if elsewhere is None and beside is not None:  # a folder without __init__.py
            self._beside.add(name)
        return elsewhere or beside

    def is_beside(self, name: str) -> bool:
        return name in self._beside

    def is_own(self, spec: ModuleSpec, top: str) -> bool:
        if top == self._own_package:
            return True
        places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
        return bool(places) and not any(is_installed(Path(place)) for place in places)

    def installed_file(self, name: str) -> str | None:
        """Return the file of an installed module of a name; None if there is none."""
        spec = PathFinder.find_spec(name, [place for place in sys.path if place and is_installed(Path(place, name))])
        return spec.origin if spec is not None and spec.has_location else None


_NOT_OWN = (
    *(Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")),
    *(PACKAGE.parent / name for name in sorted(_PROJECT)),
)


def is_installed(path: Path) -> bool:
    """Return whether a file is of an installed distribution, the standard library or this project."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(place) for place in _NOT_OWN)


@dataclass
class _Statements:
    names: set[str]
    is_computed: bool


def _statements(text: bytes, package: str) -> _Statements:
    """Return the names of all modules that the statements of a text may import; `package` is where it is."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return _Statements(set(), is_computed=True)
    names, is_computed = set[str](), False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")} if base else set()
            is_computed |= base is None
        elif isinstance(node, ast.Call) and _last_name(node.func) in _COMPUTING:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
                names.add(first.value)
            else:
                is_computed = True
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            is_computed = True
    return _Statements({name for name in names if name}, is_computed or "runpy" in names)


def _base(node: ast.ImportFrom, package: str) -> str | None:
    """Return the module of a `from` statement; None for a relative one that leads out of every package."""
    if node.level == 0:
        return node.module
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return None
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
