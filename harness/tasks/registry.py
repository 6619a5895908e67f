"""The built-in tasks, and how the task of a run is built."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from estimators import parameters
from harness.errors import did_you_mean
from harness.tasks.categorical_vae import VAETask
from harness.tasks.feature_selection import FeatureSelection
from harness.tasks.gated_experts import GatedExperts
from harness.tasks.mnist_sum import MnistSum
from harness.tasks.polynomial import Polynomial
from harness.tasks.structured_prediction import StructuredPrediction
from harness.tasks.sudoku import Sudoku
from harness.tasks.task import Task

_ALL: tuple[type[Task], ...] = (
    VAETask,
    StructuredPrediction,
    Polynomial,
    Sudoku,
    MnistSum,
    GatedExperts,
    FeatureSelection,
)

TASKS: Mapping[str, type[Task]] = MappingProxyType({cls.name: cls for cls in _ALL})


def build_task(name: str, tasks: Mapping[str, type[Task]], /, **params: Any) -> Task:
    """Return a task by name. Raises ValueError, one line, for an unknown name, parameter or impossible value."""
    if name not in tasks:
        hint = did_you_mean(name, tasks) or f"Known: {', '.join(tasks)}."
        raise ValueError(f"task: expected one of {len(tasks)} names, got {name!r}. {hint}")
    cls = tasks[name]
    known = parameters(cls)
    if unknown := [key for key in params if key not in known]:
        raise ValueError(f"{name}: expected parameters {', '.join(known) or 'none'}, got {unknown[0]}.")
    return cls(**params)
