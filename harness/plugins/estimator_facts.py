"""Facts that estimators declare, as plain data: they can be listed without importing torch.

The facts of the built-in estimators are in estimator_facts.json; a test compares it with the classes, and
`python -m harness.plugins.estimator_facts` writes it. With plug-ins or entry points every class is loaded, each time.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import did_you_mean
from harness.plugins.loading import ESTIMATORS
from harness.plugins.registry import load_registry

if TYPE_CHECKING:
    from estimators import Estimator

FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Facts:
    """The declarations of an estimator's class; `doc` is its docstring, `evaluations` a formula, in words.

    `aliases` are other names of it (`estimators.aliases`), `examples` values for the parameters that must be given,
    whose default is None.
    """

    name: str
    doc: str
    built_in: bool
    unbiased: bool
    relaxes: bool
    evaluates_soft: bool
    black_box: bool
    evaluations: str
    aliases: Sequence[str]
    parameters: Mapping[str, Any]
    examples: Mapping[str, Any]
    temperatures: Sequence[str]
    reference: str
    use_when: str


def known(plugins: Sequence[Path] = ()) -> Mapping[str, Facts]:
    """Return the facts of every estimator by its name, in the registry's order.

    Raises PluginError for what `load_registry` refuses.
    """
    if plugins or entry_points(group=ESTIMATORS):
        return read(load_registry(plugins))
    return {row["name"]: Facts(**row) for row in json.loads(FILE.read_text("utf-8"))}


def find(name: str, plugins: Sequence[Path] = ()) -> tuple[Facts, str]:
    """Return the estimator of a name, and a line on what the name means if it is another one of it; else no line.

    Raises ValueError with a one-line message for an unknown name, PluginError for what `load_registry` refuses.
    """
    facts = known(plugins)
    if name in facts:
        return facts[name], ""
    from estimators.aliases import key_of, meaning_of  # imports torch

    meaning = meaning_of(name, facts)
    if key := key_of(name, facts):
        return facts[key], f"{name} is {key} here." if meaning.startswith("Did you mean") else meaning
    hint = meaning or did_you_mean(name, facts) or f"Known: {', '.join(facts)}."
    raise ValueError(f"list: expected one of {len(facts)} names, got {name!r}. {hint}")


def read(registry: Mapping[str, type[Estimator]]) -> dict[str, Facts]:
    """Return what the classes of a registry declare."""
    return {name: _facts(cls) for name, cls in registry.items()}


def _facts(cls: type[Estimator]) -> Facts:
    from estimators import parameters
    from estimators.aliases import names_of
    from estimators.catalogue import evaluations

    built_in = cls.__module__.partition(".")[0] == "estimators"
    return Facts(
        name=cls.name,
        doc=inspect.getdoc(cls) or cls.title,
        built_in=built_in,
        unbiased=cls.unbiased,
        relaxes=cls.relaxes,
        evaluates_soft=cls.evaluates_soft,
        black_box=cls.black_box,
        evaluations=evaluations(cls),
        aliases=names_of(cls.name) if built_in else [],
        parameters=parameters(cls),
        examples=dict(cls.examples),
        temperatures=list(cls.temperatures),
        reference=cls.reference,
        use_when=cls.use_when,
    )


def _write() -> None:
    from estimators import REGISTRY

    rows = [asdict(facts) for facts in read(REGISTRY).values()]
    FILE.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
