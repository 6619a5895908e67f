"""What estimators say about themselves, as plain data, so that it can be listed without importing torch.

The facts of the built-in estimators are read from their classes once and remembered in the user's cache folder, under a
hash of everything that they are made from; docs/decisions/007-start-and-report.md says why. With plugins or entry
points every class is loaded, each time.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.environment import EnvironmentProblem, path_variable, user_folder
from harness.plugins.registry import GROUP, load_registry

if TYPE_CHECKING:
    from estimators import Estimator


@dataclass(frozen=True)
class Facts:
    """The declarations of an estimator's class; `doc` is its docstring, `evaluations` a formula, in words."""

    name: str
    doc: str
    built_in: bool
    unbiased: bool
    relaxes: bool
    evaluates_soft: bool
    black_box: bool
    evaluations: str
    parameters: Mapping[str, Any]
    temperatures: Sequence[str]
    reference: str
    use_when: str


def known(plugins: Sequence[Path] = ()) -> Mapping[str, Facts]:
    """Return the facts of every estimator by its name, in the registry's order. PluginError as `load_registry`."""
    if plugins or entry_points(group=GROUP):
        return read(load_registry(plugins))
    before = identity()
    found = remembered(before)
    if found is None:
        found = read(load_registry())
        if identity() == before:  # else a file was edited meanwhile, and which text was imported is not known
            remember(before, found)
    return found


def read(registry: Mapping[str, type[Estimator]]) -> dict[str, Facts]:
    """Return what the classes of a registry declare."""
    return {name: _facts(cls) for name, cls in registry.items()}


def _facts(cls: type[Estimator]) -> Facts:
    from estimators import parameters
    from estimators.catalogue import evaluations

    return Facts(
        name=cls.name,
        doc=inspect.getdoc(cls) or cls.title,
        built_in=cls.__module__.partition(".")[0] == "estimators",
        unbiased=cls.unbiased,
        relaxes=cls.relaxes,
        evaluates_soft=cls.evaluates_soft,
        black_box=cls.black_box,
        evaluations=evaluations(cls),
        parameters=parameters(cls),
        temperatures=list(cls.temperatures),
        reference=cls.reference,
        use_when=cls.use_when,
    )


def identity() -> str:
    """Return a hash of all that the built-in facts are made from: the sources, Python's version and torch's."""
    sources = (*sorted(_package().rglob("*.py")), Path(__file__))
    parts = [sys.version.encode(), version("torch").encode()]
    parts += [part for path in sources for part in (str(path).encode(), path.read_bytes())]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _package() -> Path:
    """Return the folder of `estimators`, without importing it."""
    spec = find_spec("estimators")
    assert spec is not None and spec.origin is not None  # noqa: S101, PT018  # it is installed with this package
    return Path(spec.origin).parent


def cache_file() -> Path:
    """Return where the facts of this installation are remembered: one file each, so that none is left over.

    In $HARNESS_CACHE_DIR, else argmax-harness in the user's cache folder.
    """
    cache = path_variable("HARNESS_CACHE_DIR") or user_folder("XDG_CACHE_HOME", ".cache") / "argmax-harness"
    place = hashlib.sha256(str(_package()).encode()).hexdigest()[:16]
    return cache / f"estimators-{place}.json"


def remembered(wanted: str) -> dict[str, Facts] | None:
    """Return the facts that were remembered under that identity; None if there are none that can be used."""
    try:
        stored = json.loads(cache_file().read_bytes())
        if stored["identity"] != wanted:
            return None
        return {row["name"]: Facts(**row) for row in stored["estimators"]}
    except (
        OSError,
        EnvironmentProblem,
        ValueError,
        TypeError,
        KeyError,
    ):  # then the classes are read
        return None


def remember(made_from: str, facts: Mapping[str, Facts]) -> None:
    """Write the facts, whole or not at all."""
    text = json.dumps({"identity": made_from, "estimators": [asdict(each) for each in facts.values()]})
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except (OSError, EnvironmentProblem):  # no home, or a full or read-only disk: the next list is slow, and right
        return
