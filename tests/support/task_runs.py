"""Runs of other tasks than the VAE, in memory: formulas of estimator, schedule and seed, as in `reports_store`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from reports_store import PROVENANCE, START_MS, STEPS_PER_EPOCH, Planned, neg_elbo

from reports.contract.settings import Setting, setting_from_label
from reports.store.frame import Runs, Sweep, history_frame, tidy


def measure(name: str, better: str = "lower", **more: Any) -> dict[str, Any]:
    """One entry of the tag `harness.measures`."""
    metrics = {"metric": f"test/{name}", "validation": f"val/{name}"}
    return {"name": name, "title": name, "unit": "", "better": better, "band": None} | metrics | more


ACCURACY = measure("accuracy", "higher", title="accuracy of the digits", band=0.01)
DISTANCE = measure("distance", unit="mm", title="distance to the optimum")


@dataclass(frozen=True, eq=False)
class FakeTask:
    """A task, what it declares, and its values: offset + scale × those of the VAE's runs."""

    name: str
    measures: Sequence[Mapping[str, Any]]
    offset: float
    scale: float
    params: Mapping[str, Any] = field(default_factory=dict)

    def value(self, run: Planned) -> float:
        """The final value of the first measure."""
        return self.offset + self.scale * neg_elbo(run)

    def numbers(self, run: Planned, behind: float = 0.0) -> dict[str, float]:
        """The value of every measure, each a little worse during training."""
        first = self.value(run) + 10 * self.scale * behind
        return {one["name"]: first if i == 0 else 1 + first * i for i, one in enumerate(self.measures)}


DIGITS = FakeTask("mnist_sum", [ACCURACY, measure("sum_accuracy", "higher")], 1, -1 / 200, {"task.n_digits": 2})
CURVE = FakeTask("polynomial", [DISTANCE], 0, 1 / 1000, {"task.p": 2})


def task_records(
    task: FakeTask, planned: Sequence[Planned], own_axes: Sequence[tuple[str, str]] = (), epochs: int = 4
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, float]]]]:
    """What `reports.store.records.to_record` gives for the runs of a task, and their histories by run key."""
    records, histories = [], {}
    for number, run in enumerate(planned):
        key = f"{task.name} {sorted(task.params.items())} {run.key}"
        is_known = run.status != "missing"
        parts = setting_from_label(run.label, run.estimator, run.schedule, "")
        axes = (*own_axes, *parts.axes)
        record: dict[str, Any] = {
            **{name: getattr(run, name) for name in ("estimator", "schedule", "device", "seed", "label", "status")},
            "run_key": key,
            "run_id": f"{zlib.crc32(key.encode()):032x}" if is_known else "",
            "name": run.label,
            "error": run.error,
            "sweep": "s",
            "shared_machine": True,
            "parts": Setting(*parts[:2], axes),
        }
        if is_known:
            start = pd.Timestamp(START_MS + 1000 * number, unit="ms", tz="UTC")
            record |= {"start": start, "end": start + pd.Timedelta(seconds=1), "training.lr": 0.001}
            record |= {"task": task.name, "task.name": task.name, **task.params, **run.params}
            record |= {"experiment": "tasks", "experiment_id": "1", "measures": json.dumps(list(task.measures))}
            record |= {"schedule.tau": 1.0} if run.schedule == "constant" else {}
        if run.status == "finished":
            record |= {f"test/{name}": value for name, value in task.numbers(run).items()}
            record |= {"test/loss": 1.0, "cost/n_cost_evals": 1.0 + len(run.estimator) % 3, "memory/peak_mb": 400.0}
            record |= {"time/step_s_median": 0.004 + 0.0001 * len(run.estimator), "time/images_per_s": 9e3}
            record |= {"latent/perplexity": 3.0, "latent/entropy": 1.5, "latent/dead_classes": 0.0}
        records.append(record)
        if run.status not in ("missing", "skipped"):
            histories[key] = [_epoch(task, run, epoch) for epoch in range(1, epochs + 1)]
    return records, histories


def _epoch(task: FakeTask, run: Planned, epoch: int) -> dict[str, float]:
    when = {"epoch": epoch, "step": epoch * STEPS_PER_EPOCH, "elapsed_s": 0.1 * epoch}
    measured = {f"val/{name}": value for name, value in task.numbers(run, 3 / epoch).items()}
    tau = {} if run.schedule == "none" else {"tau": 1.0}
    return {**when, **tau, **measured, "val/loss": 1 + 1 / epoch, "train/loss": 1 + 1 / epoch}


def own_axes(task: FakeTask, tasks: Sequence[FakeTask]) -> list[tuple[str, str]]:
    """The first axes of a setting: the name of the task, and the parameters that differ, as the harness has them."""
    found = [("task", task.name)] if len({each.name for each in tasks}) > 1 else []
    same = [each.params for each in tasks if each.name == task.name]
    differing = [key for key in task.params if len({params[key] for params in same}) > 1]
    return [*found, *((key.removeprefix("task."), str(task.params[key])) for key in differing)]


def task_runs(tasks: Mapping[FakeTask, Sequence[Planned]] | FakeTask, planned: Sequence[Planned] = ()) -> Runs:
    """What ``reports.load`` would give for a sweep over tasks, or for one of one task."""
    chosen = [(tasks, planned)] if isinstance(tasks, FakeTask) else list(tasks.items())
    records, histories = [], {}
    for task, runs in chosen:
        found, curves = task_records(task, runs, own_axes(task, [each for each, _ in chosen]))
        records += found
        histories |= curves
    frame = tidy(records)
    provenance = {**PROVENANCE, "workers": 1}
    sweeps = (Sweep("s", "harness run --grid tasks.yaml", "Which estimator?", "name: tasks\n", provenance),)
    return Runs("tasks", frame, history_frame(frame, histories), sweeps=sweeps)
