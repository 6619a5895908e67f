"""The estimator that a name, or an object, stands for in `sample`, `expect`, `draw_codes` and a distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from estimators.base import Estimator, Pathwise
from estimators.draws_first import DrawsFirst
from estimators.registry import REGISTRY, build

_BUILT: dict[tuple[object, ...], Estimator] = {}
"""Estimators without a state that were built by name, so that a call costs no construction: MOST_BUILT at most."""
MOST_BUILT = 64


def _any_kind(built: Estimator, instead: str) -> None:
    """Accept every estimator."""


def check_pathwise(built: Estimator, instead: str) -> None:
    """Raise ValueError unless the gradient of the estimator flows through its code."""
    if not isinstance(built, Pathwise):
        raise ValueError(
            f"sample: expected a pathwise estimator, got {built.name}, whose gradient does not flow through a code."
            f" {instead}"
        )


def check_draws_first(built: Estimator, instead: str) -> None:
    """Raise ValueError unless the estimator draws its codes before it needs a cost."""
    if not isinstance(built, DrawsFirst):
        unlike = ("vimco", "disarm")  # a bound; two classes only
        known = ", ".join(key for key, cls in REGISTRY.items() if issubclass(cls, DrawsFirst) and key not in unlike)
        raise ValueError(
            f"draw_codes: expected an estimator that needs no more of a cost than its values at drawn codes, such as"
            f" {known}, got {built.name}. {instead}"
        )


def _instead(built: Estimator, estimator: str | Estimator, params: dict[str, Any]) -> str:
    """Return what to call where the estimator is not of the kind that a function needs: a call that works."""
    if built.objective != "mean":
        return f"Call an object: build({built.name!r})(logits_BLK, cost)."
    if not isinstance(estimator, str):
        return "Use expect(logits, cost, estimator)."
    if _has_state(built):
        return (
            f"It learns from call to call: estimator = {_construction(built, params)}; expect(logits, cost, estimator)."
        )
    return f"Use expect(logits, cost, {built.name!r})."


def _has_state(built: Estimator) -> bool:
    return bool([*built.parameters(), *built.buffers()])


def _construction(built: Estimator, params: dict[str, Any]) -> str:
    return f"build({built.name!r}{''.join(f', {key}={value!r}' for key, value in params.items())})"


Kind = Callable[[Estimator, str], None]
"""(estimator, what to call instead) -> None. Raises ValueError for an estimator that is not of a kind."""


def resolve(caller: str, estimator: str | Estimator, params: dict[str, Any], check_kind: Kind = _any_kind) -> Estimator:
    """Return the estimator of that name and these parameters, or the object. Raises ValueError for anything else.

    The kind is checked first: that an object is needed is no help where none would do.
    """
    if isinstance(estimator, Estimator):
        if params:
            raise ValueError(
                f"{caller}: expected no parameters beside an object, got {', '.join(params)}."
                " Set them where the object is built."
            )
        check_kind(estimator, _instead(estimator, estimator, params))
        return estimator
    if not isinstance(estimator, str):
        raise ValueError(f"{caller}: expected the name of an estimator or an object, got {estimator!r}.")
    plain = all(isinstance(value, bool | int | float | str) for value in params.values())  # no learned temperature
    if not plain or torch.compiler.is_compiling():
        return _of_kind(caller, estimator, params, check_kind)
    key = (estimator, *((name, type(value), value) for name, value in sorted(params.items())))
    found = _BUILT.get(key)
    if found is None:
        found = _of_kind(caller, estimator, params, check_kind)
        if len(_BUILT) >= MOST_BUILT:  # of a temperature that changes with each step, none is wanted again
            _BUILT.clear()
        _BUILT[key] = found
    else:
        check_kind(found, _instead(found, estimator, params))
    return found


def _of_kind(caller: str, name: str, params: dict[str, Any], check_kind: Kind) -> Estimator:
    built = build(name, **params)
    check_kind(built, _instead(built, name, params))
    return _without_state(caller, built, params)


def _without_state(caller: str, built: Estimator, params: dict[str, Any]) -> Estimator:
    if _has_state(built):
        raise ValueError(
            f"{caller}: expected an object of {built.name}, which learns from call to call, got its name."
            f" Build it once: {_construction(built, params)}."
        )
    return built
