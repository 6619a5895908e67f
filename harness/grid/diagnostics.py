"""The `diagnostics` section of a grid: one setting for all runs, its basket checked like the grid's estimators."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.config import BasketConfig, DiagnosticsConfig
from harness.grid import choices
from harness.grid.choices import Placed
from harness.grid.errors import ErrorList
from harness.grid.estimators import BuiltEstimators, Candidate, build_one, check_shapes, read_estimators
from harness.grid.yaml_nodes import Node

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

EVERY = re.compile(r"([1-9][0-9]{0,8}) epochs?")


def read_diagnostics(
    node: Node, registry: Registry, errors: ErrorList
) -> tuple[DiagnosticsConfig | None, BuiltEstimators]:
    """Return the section, and the estimators of its basket for `check_basket`. With an error there is no section."""
    before = len(errors)
    entries = choices.read_mapping(node, "diagnostics", errors)
    basket: list[Candidate] = []
    if "basket" in entries:
        basket = read_estimators(entries["basket"], registry, errors, "diagnostics.basket", BasketConfig)
    choices.refuse_repeats(basket, errors)
    rest = {key: _in_epochs(value) if key == "every" else value for key, value in entries.items() if key != "basket"}
    fields = choices.read_fields(Node(rest, node.position, node.keys), "diagnostics", DiagnosticsConfig, errors)
    for key, found in fields.items():
        if isinstance(rest[key].value, list):
            errors.expected(
                choices.placed(rest[key], f"diagnostics.{key}"), "one value for all runs", rest[key].plain()
            )
        fields[key] = found[:1]
    built = [(each, build_one(each, registry, {}, errors)) for each in basket]
    if len(errors) > before:
        return None, []
    given = {key: found[0] for key, found in fields.items()}
    given["basket"] = Placed(tuple(each.value for each in basket), node.position, "diagnostics.basket")
    where = Placed(None, node.position, "diagnostics")
    return choices.build(DiagnosticsConfig, given, where, errors), built


def _in_epochs(node: Node) -> Node:
    """Return `1 epoch` and `5 epochs` as the numbers 1 and 5, and anything else as it is, to be refused."""
    found = EVERY.fullmatch(node.value) if isinstance(node.value, str) else None
    return Node(int(found[1]), node.position, node.keys) if found else node


def check_basket(built: BuiltEstimators, shapes: Iterable[tuple[int, int]], errors: ErrorList) -> None:
    """Add an error for each estimator of the basket that has no gradient of E[cost] on a model."""
    shapes = list(shapes)
    check_shapes(built, shapes, errors)
    for candidate, estimator in built:
        if reason := _mismatch(estimator, shapes):
            errors.add(candidate.position, candidate.path, f"{reason}, got {candidate.value.name}.")


def _mismatch(estimator: Any, shapes: Iterable[tuple[int, int]]) -> str:
    if estimator.objective == "bound":
        return "expected an estimator of the gradient of E[cost]"
    if any(estimator.n_outputs(n_categories) != n_categories for _, n_categories in shapes):
        return "expected an estimator that takes n_categories logits for each latent"
    return ""
