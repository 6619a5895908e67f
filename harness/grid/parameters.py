"""The parameters that a grid gives to an estimator or a task: those of its constructor, which are keyword-only."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.grid import choices
from harness.grid.choices import Fields, Placed
from harness.grid.errors import ErrorList
from harness.grid.yaml_nodes import Node


def read_parameters(item: Node, path: str, known: Mapping[str, Any], also: Iterable[str], errors: ErrorList) -> Fields:
    """Return the choices of each parameter of a mapping; `known` are the parameters with their defaults.

    Keys in `also` mean something else and are passed over.
    """
    also, fields = list(also), Fields()
    for key, node in item.value.items() if isinstance(item.value, dict) else ():
        where = f"{path}.{key}"
        if key in also:
            continue
        if key not in known:
            choices.refuse_key(item, key, where, [*also, *known], errors)
            continue
        is_list = isinstance(known[key], list | tuple)
        fields[key] = [_checked(choice, errors) for choice in choices.swept_values(node, where, is_list=is_list)]
        if not fields[key]:
            errors.expected(choices.placed(node, where), "a value or a list of at least one", [])
    return fields


def _checked(choice: Placed, errors: ErrorList) -> Placed:
    """Add an error for what is no plain finite value or tuple of them. The constructor checks the rest."""
    values = choice.value if isinstance(choice.value, tuple) else (choice.value,)
    for value in values:
        if isinstance(value, dict | list):
            errors.expected(choice, "a plain value", choice.value)
        elif isinstance(value, float) and not math.isfinite(value):
            errors.expected(choice, "a finite number", value)
        elif isinstance(value, int) and abs(value) > 2**63:
            errors.expected(choice, "a number of at most 64 bits", value)
    return choice


def as_declared(cls: type, key: str, value: Any) -> Any:
    """Return a whole number as a float where the parameter is one: 1 and 1.0 must give the same run key."""
    argument = inspect.signature(cls).parameters.get(key)
    if argument is None:  # an option of every estimator, such as unimix, whose default is a float
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    kind = str(argument.annotation)
    is_float = isinstance(argument.default, float) or ("float" in kind and "int" not in kind)
    return float(value) if is_float and isinstance(value, int) and not isinstance(value, bool) else value
