"""The search space of a tuning: settings by their dotted names, and the values that a trial gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.config import EstimatorConfig, RunConfig, estimator_label

SECTIONS = ("training", "model", "schedule")
DIGITS = 4
"""Significant digits of a sampled number, so that a label shows the value itself."""


@dataclass(frozen=True)
class Dimension:
    """A setting to search: choices, or an interval on a linear or logarithmic scale.

    `path` is a dotted name such as `training.lr`, or `estimators[rloo].n_samples` for the estimators of one name.
    """

    path: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False

    @property
    def estimator(self) -> str | None:
        """The name of the estimators whose parameter it is; None for a setting of all."""
        return self.path[len("estimators[") :].partition("]")[0] if self.path.startswith("estimators[") else None

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values at the border of an interval; no choice is one."""
        return () if self.choices else (_rounded(self.low), _rounded(self.high))

    def stated(self) -> dict[str, Any]:
        """Return the values to search as JSON data."""
        if self.choices:
            return {"choices": list(self.choices)}
        low, high = self.ends
        return {"scale": "log" if self.is_log else "uniform", "low": low, "high": high}

    def applies(self, run: RunConfig) -> bool:
        """Return whether a run has the setting: a schedule may lack it, and so may another estimator."""
        section, _, name = self.path.partition(".")
        if self.estimator is not None:
            return run.estimator.name == self.estimator
        if section == "schedule":
            return name in _names(run.schedule)
        return section in run.sections

    def value(self, share: float) -> Any:
        """Return the value at a share from 0 to 1 of the interval, or of the list of choices."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            return _rounded(math.exp(low + share * (high - low)))
        return _rounded(self.low + share * (self.high - self.low))

    def drawn(self, trial: int) -> Any:
        """Return the value of a random trial. It depends on the setting and the trial alone.

        So all estimators have the same draws where they share the setting, and a longer search begins with a shorter.
        """
        return self.value(Random(f"{self.path} {trial}").random())  # noqa: S311 no secret


Space = tuple[Dimension, ...]


def with_values(run: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return a run with other settings, by their dotted names. Raises ValueError for impossible ones."""
    update: dict[str, Any] = {}
    for section in SECTIONS:
        mine = {path.partition(".")[2]: value for path, value in values.items() if path.startswith(f"{section}.")}
        if mine:
            old = getattr(run, section)
            update[section] = type(old)(**{**old.model_dump(by_alias=True, exclude_unset=True), **mine})
    params = {path.rpartition("].")[2]: value for path, value in values.items() if path.startswith("estimators[")}
    if params:
        update["estimator"] = _with_params(run.estimator, params)
    return run.model_copy(update=update)


def _with_params(estimator: EstimatorConfig, params: Mapping[str, Any]) -> EstimatorConfig:
    """Return an estimator with other parameters, which its label shows."""
    name, _, rest = estimator.label.removesuffix(")").partition("(")
    kept = [part for part in rest.split(", ") if part and part.partition("=")[0] not in params]
    shown = [estimator_label("", {key: value})[1:-1] for key, value in params.items()]
    label = f"{name}({', '.join([*kept, *shown])})"[:200]
    return estimator.model_copy(update={"params": {**estimator.params, **params}, "custom_label": label})


def _names(schedule: Any) -> set[str]:
    """Return the names of the numbers of a schedule, as a grid has them."""
    fields = type(schedule).model_fields
    return {field.alias or name for name, field in fields.items()} - {"kind", "label"}


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
