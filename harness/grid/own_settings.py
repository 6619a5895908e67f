"""The settings that an estimator of a grid has for itself, in place of those of the grid."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from harness.grid import choices
from harness.grid.axes import read_schedules
from harness.grid.choices import Placed
from harness.grid.errors import ErrorList
from harness.grid.sections import Factor, keep, paths_of, read_section
from harness.grid.yaml_nodes import Node

SECTIONS = ("training", "model")
"""The sections of a grid whose settings an estimator may have for itself."""
SCHEDULE = "schedule"
KEYS = ("training", SCHEDULE, "model")
OF_GRID = ("task", "data", "evaluation", "diagnostics", "devices", "seeds")
"""The keys of a grid that no estimator has for itself."""


@dataclass(frozen=True, eq=False)
class OwnSettings:
    """The values of settings that replace the grid's for an estimator, and its schedules (None: those of the grid)."""

    factors: list[Factor] = field(default_factory=list)
    schedules: list[Placed] | None = None

    @property
    def is_given(self) -> bool:
        return bool(self.factors) or self.schedules is not None

    def replace(self, factors: Iterable[Factor]) -> list[Factor]:
        """Return the factors of the grid with these in their place.

        Rows of a zipped group that differ in replaced settings alone are one row.
        """
        mine = paths_of(self.factors)
        return [*(keep(factor, lambda path: path not in mine) for factor in factors), *self.factors]


def own_keys(item: Node, parameters: Collection[str]) -> tuple[str, ...]:
    """Return the keys of an estimator's mapping that are settings of its own; `parameters` of a plug-in go first."""
    given = item.value if isinstance(item.value, dict) else {}
    return tuple(key for key in KEYS if key in given and key not in parameters)


def read_own(item: Node, path: str, keys: Collection[str], errors: ErrorList) -> OwnSettings:
    """Return the settings of an estimator's own that its mapping has under `keys`."""
    factors: list[Factor] = []
    for section in SECTIONS:
        if section in keys:
            factors += read_section(section, item.value[section], f"{path}.{section}", errors)
    schedules = None
    if SCHEDULE in keys:
        schedules = read_schedules(item.value[SCHEDULE], errors, f"{path}.{SCHEDULE}", may_be_one=True)
        choices.refuse_repeats(schedules, errors)
    return OwnSettings(factors, schedules)


def refuse_of_grid(item: Node, path: str, parameters: Collection[str], errors: ErrorList) -> Node:
    """Return an estimator's mapping without keys that the whole grid shares, with an error for each."""
    if not isinstance(item.value, dict):
        return item
    found = [key for key in OF_GRID if key in item.value and key not in parameters]
    for key in found:
        message = f"expected {key} in the grid, since all estimators share it, got it here."
        errors.add(item.keys[key], f"{path}.{key}", message)
    return Node({key: node for key, node in item.value.items() if key not in found}, item.position, item.keys)


def refuse_own(item: Node, path: str, keys: Iterable[str], errors: ErrorList) -> None:
    """Add an error for each setting of its own that an estimator of a basket has."""
    for key in keys:
        message = f"expected no {key} of its own in a basket, which is measured in the runs of others, got one."
        errors.add(item.keys[key], f"{path}.{key}", f"{message} Remove {key}.")
