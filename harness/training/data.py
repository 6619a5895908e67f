"""The task of a run and its data, which a worker remembers from one run to the next."""

from collections.abc import Mapping
from typing import Any

import torch

from estimators import Estimator
from harness.config import DataConfig, RunConfig
from harness.datasets.own import NO_SOURCES, Sources
from harness.measures import VAE_NAME
from harness.plugins.registry import tasks_of
from harness.tasks.generators import others_seeded
from harness.tasks.registry import build_task
from harness.tasks.splits import NoData, Splits
from harness.tasks.task import Task
from harness.training import seeding
from harness.training.fingerprint import fingerprint, is_same

DATA_SEED = 0
"""The seed of data that a task draws: all runs of a setting have the same data."""

_newest: dict[tuple[type[Task], str, str], Splits | NoData] = {}


def new_task(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> Task:
    """Return the task of a run, untrained. Raises ValueError if its parameters are refused."""
    if run.task is None:
        return build_task(VAE_NAME, tasks_of(registry), **run.model.model_dump())
    return build_task(run.task.name, tasks_of(registry), **run.task.params)


def load_splits(run: RunConfig, task: Task, sources: Sources = NO_SOURCES) -> Splits:
    """Return the data of a run. Those of the newest setting are remembered: most runs of a worker want the same ones.

    `sources` are own images of plug-ins. Raises what the task's `data` raises, and ValueError for something else.
    """
    config = run.data.with_source(sources) if task.uses_images else None
    key = (type(task), run.task.canonical if run.task else "", config.canonical if config else "")
    if key not in _newest:
        _newest.clear()
        _newest[key] = _checked(run, draw_data(_of_no_seed(run, task), config))
    data = _newest[key]
    return data.splits(run.training.batch_size) if isinstance(data, NoData) else data


def _checked(run: RunConfig, data: Splits | NoData) -> Splits | NoData:
    """Return the data. Raises ValueError if they are not those that the grid was read with."""
    stated = run.task.fingerprint if run.task else ()
    if stated and not is_same(stated, fingerprint(data)):
        raise ValueError(
            f"{run.task_name}: expected data() to return the same numbers in every process, got others than when the"
            " grid was read. Seed every generator that it makes, such as numpy.random.default_rng(0)."
        )
    return data


def _of_no_seed(run: RunConfig, task: Task) -> Task:
    """Return a task with the initial weights of DATA_SEED, so that data made by them are the same for all runs."""
    if run.task is None:
        return task
    return initial_task(type(task), run.task.params)


def initial_task(cls: type[Task], params: Mapping[str, Any]) -> Task:
    """Return a task with the initial weights of DATA_SEED. Its constructor raises ValueError for what it refuses."""
    with seeding.seeded(DATA_SEED, "initialisation", device=torch.device("cpu")):
        return cls(**params)


def draw_data(task: Task, config: DataConfig | None = None) -> Splits | NoData:
    """Return the data of a task, with the generators of torch, numpy and Python seeded for it.

    Raises ValueError for something else.
    """
    with seeding.seeded(DATA_SEED, "data", device=torch.device("cpu")), others_seeded(DATA_SEED):
        found = task.data(config)
    if not isinstance(found, Splits | NoData):
        raise ValueError(f"{task.name}: expected data() to return Splits or NoData, got {type(found).__name__}.")
    return found
