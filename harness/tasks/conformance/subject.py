"""What the checks of a task work on: the task, built and with data, a batch, and one of two usual estimators."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from estimators import Estimator, build
from harness.config import DataConfig
from harness.tasks.fit import reason_to_skip
from harness.tasks.generators import others_seeded
from harness.tasks.splits import Batch, NoData, Splits, take
from harness.tasks.task import Task

ESTIMATORS: Mapping[str, Mapping[str, Any]] = {"rloo": {"n_samples": 4}, "straight_through": {}}
"""A score-function and a pathwise estimator. Those that the task's declaration excludes are left out."""
N_EXAMPLES = 16
DATA_SEED = 0
NO_DATA_BATCH = 64
"""The batch size of a task without data."""


class ConformanceError(AssertionError):
    """A rule that a task breaks. `method` is where the task's author should look."""

    def __init__(self, message: str, method: str) -> None:
        super().__init__(message)
        self.method = method


@dataclass(frozen=True)
class Subject:
    """A task that was built for one estimator, with examples of its training and test data."""

    task: Task
    estimators: Mapping[str, Estimator]
    batch: Batch
    test: Batch
    data: Splits | NoData
    params: Mapping[str, Any]
    config: DataConfig | None
    warnings: list[str] = field(default_factory=list)
    """Lines about what may be wrong; checks add to them."""

    @property
    def estimator(self) -> Estimator:
        return next(iter(self.estimators.values()))

    def require(self, ok: bool, expected: str, got: object, what_to_do: str, method: str = "loss") -> None:
        """Raise ConformanceError, in one line, if a rule is broken."""
        if not ok:
            line = f"{self.task.name}: expected {expected}, got {got}. {what_to_do}"
            raise ConformanceError(" ".join(line.split()), method)

    def again(self, seed: int = 0) -> Subject:
        """Return the same with a new task and new estimators, whose weights are those of a seed."""
        return _subject(type(self.task), self.params, self.config, self.data, self.estimator, seed)


def subjects(cls: type[Task], params: Mapping[str, Any], config: DataConfig | None = None) -> list[Subject]:
    """Return a subject for each estimator that the task's declaration allows.

    `config` is the `data` section of a grid, for a task with images. Raises ConformanceError, and what the task raises.
    """
    with seeded(DATA_SEED):
        task = cls(**params)
        layers = dict(task.layers())
    wrong = [shape for shape in layers.values() if len(shape) != 2 or not all(type(n) is int and n >= 1 for n in shape)]
    if not layers or wrong:
        got = f"{wrong[0]}" if layers else "no layer"
        raise ConformanceError(
            f"{task.name}: expected layers() to give whole numbers (L, K) above 0 for each layer's name, got {got}.",
            "layers",
        )
    config = (config or DataConfig()) if cls.uses_images else None
    data = drawn(task, config)
    if not isinstance(data, Splits | NoData):
        raise ConformanceError(
            f"{task.name}: expected data() to return Splits(train=…, test=…) or NoData(…), got {type(data).__name__}.",
            "data",
        )
    candidates = [build(name, **settings) for name, settings in ESTIMATORS.items()]
    reasons = [reason_to_skip(cls, one, layers.values()) for one in candidates]
    found = [
        _subject(cls, params, config, data, one) for one, reason in zip(candidates, reasons, strict=True) if not reason
    ]
    if not found:
        line = f"{task.name}: expected an estimator that can train it, got none. {reasons[0]}."
        raise ConformanceError(line, "layers")
    return found


def drawn(task: Task, config: DataConfig | None) -> Any:
    """Return what `data` gives, with the generators of torch, numpy and Python seeded, as in a sweep."""
    with seeded(DATA_SEED), others_seeded(DATA_SEED):
        return task.data(config)


def _subject(
    cls: type[Task],
    params: Mapping[str, Any],
    config: DataConfig | None,
    data: Splits | NoData,
    estimator: Estimator,
    seed: int = 0,
) -> Subject:
    splits = data.splits(NO_DATA_BATCH) if isinstance(data, NoData) else data
    with seeded(seed):
        task = cls(**params)
        context = task.context(take(splits.train, 1))
        estimators = {name: copy.deepcopy(estimator) for name in task.layers()}
        for name, shape in task.layers().items():
            estimators[name].prepare(*shape, n_context=0 if context is None else context.shape[-1])
        task.build(splits, {name: one.n_outputs(task.layers()[name][1]) for name, one in estimators.items()})
        index_B = torch.arange(min(N_EXAMPLES, splits.n_train))
        batch = splits.train_batch(index_B, torch.Generator().manual_seed(seed))
    return Subject(task, estimators, batch, take(splits.test, N_EXAMPLES), data, params, config)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator inside the block, and restore it after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
