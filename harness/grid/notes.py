"""What a person should know about a grid before it runs: settings that change nothing, and expensive estimators."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from harness.config import DataConfig, sizes_of
from harness.datasets.sizes import can_be_drawn, sizes
from harness.grid.choices import Placed
from harness.grid.estimators import BuiltEstimators, Candidate, schedules_for
from harness.grid.sections import Factor, SectionValues, paths_of
from harness.grid.tasks import TaskChoice
from harness.plugins.registry import tasks_of
from harness.schedules import Constant, Decoupled, Learned, Schedule, SingleTau, short
from harness.units import counted

if TYPE_CHECKING:
    from harness.config import DiagnosticsConfig, EvaluationConfig, TaskConfig, TrainingConfig
    from harness.plugins.registry import Registry

EXPENSIVE = 10
"""Decoder evaluations per image and step from which on a note says how many there are."""


def schedule_notes(candidates: Iterable[Candidate], schedules: list[Placed], registry: Registry) -> Iterator[str]:
    """Yield a note for each estimator without schedules of its own that is not combined with all of the grid."""
    for name in dict.fromkeys(each.value.name for each in candidates if each.own.schedules is None):
        cls = registry[name]
        n_used = len(schedules_for(cls, schedules))
        if len(schedules) > 1 and n_used < len(schedules):
            has = f"has {' and '.join(cls.temperatures)}" if cls.temperatures else "ignores tau"
            count = max(1, n_used)
            yield f"{name} {has}: {count} schedule{'s' * (count > 1)} instead of {len(schedules)}"


def unused_notes(
    candidates: Collection[Candidate], factors: Iterable[Factor], schedules: Collection[Placed] | None
) -> Iterator[str]:
    """Yield a note for each setting of the grid that every estimator replaces; `schedules` is None if it has none."""
    replaced = [paths_of(candidate.own.factors) for candidate in candidates]
    for path in paths_of(factors):
        if all(path in paths for paths in replaced):
            yield f"{path} of the grid has no effect: every estimator has its own"
    if schedules is not None and all(candidate.own.schedules is not None for candidate in candidates):
        yield "schedules of the grid have no effect: every estimator has its own"


def expensive_notes(built: BuiltEstimators, shapes: Iterable[tuple[int, int]], *, is_vae: bool = True) -> Iterator[str]:
    """Yield a note for each estimator that evaluates the cost EXPENSIVE times a step or more: in a VAE, the decoder."""
    shapes = list(shapes)
    counts = {
        (candidate.value.label, *shape): estimator.n_cost_evals(*shape)
        for candidate, estimator in built
        for shape in shapes
    }
    for (label, n_latents, n_categories), count in counts.items():
        if count >= EXPENSIVE:
            yield (
                f"{label} evaluates the {'decoder' if is_vae else 'cost'} {count:,} times per "
                f"{'image' if is_vae else 'example'} and step at "
                f"{n_latents} × {n_categories} latents"
            )


def ineffective_notes(
    settings: Iterable[SectionValues], diagnostics: DiagnosticsConfig | None, schedules: Iterable[Schedule]
) -> Iterator[str]:
    """Yield a note, once, for each setting that changes nothing on these data within these epochs."""
    found: dict[str, None] = {}
    schedules = list(schedules)
    for task, data, training, evaluation in {
        (s["task"], s.get("data"), s["training"], s["evaluation"]): None for s in settings
    }:
        budget = _budget(task, data, training)
        found |= dict.fromkeys(_of_training(training, budget))
        found |= dict.fromkeys(_of_evaluation(evaluation, training))
        found |= dict.fromkeys(_of_pictures(evaluation, data) if data else ())
        found |= dict.fromkeys(_of_schedules(schedules, budget))
        found |= dict.fromkeys(_of_diagnostics(diagnostics, training, budget) if diagnostics else ())
    yield from found


class Budget(NamedTuple):
    """The examples that a run trains on, what they are, and its updates."""

    n_train: int
    examples: str
    steps_per_epoch: int
    n_steps: int


def _budget(task: TaskConfig | None, data: DataConfig | None, training: TrainingConfig) -> Budget:
    """Return the budget of the runs of a setting."""
    n_train = sizes_of(task, data or DataConfig(), training.batch_size).n_train
    steps_per_epoch = math.ceil(n_train / training.batch_size)
    examples = "examples" if data is None else "images"
    return Budget(n_train, examples, steps_per_epoch, steps_per_epoch * training.epochs)


def skip_notes(built: BuiltEstimators, tasks: Iterable[TaskChoice], registry: Registry) -> Iterator[str]:
    """Yield a note for each estimator that a task skips, with the reason."""
    from harness.tasks.fit import reason_to_skip

    found = {
        reason_to_skip(tasks_of(registry)[task.name], estimator, task.value.layers.values()): None
        for task in tasks
        if task.value is not None
        for _, estimator in built
    }
    yield from (f"skipped: {reason}" for reason in found if reason)


def _of_training(training: TrainingConfig, budget: Budget) -> Iterator[str]:
    """Yield notes about the settings of training."""
    if training.batch_size > budget.n_train:
        all_of_them = f"the {budget.n_train:,} training {budget.examples}"
        yield (
            f"training.batch_size {training.batch_size:,} is more than {all_of_them}: each epoch is one update of "
            "all of them"
        )
    if training.lr_schedule != "constant" and budget.n_steps == 1:
        yield f"training.lr_schedule {training.lr_schedule} changes nothing in runs of 1 update"


def _of_evaluation(evaluation: EvaluationConfig, training: TrainingConfig) -> Iterator[str]:
    """Yield notes about the settings of evaluation."""
    if evaluation.validation_every > training.epochs:
        yield (
            f"evaluation.validation_every {evaluation.validation_every:,} is more than the "
            f"{counted(training.epochs, 'epoch')} of a run: validated after the last one only"
        )


def _of_pictures(evaluation: EvaluationConfig, data: DataConfig) -> Iterator[str]:
    """Yield a note about images that cannot be drawn."""
    shape = sizes(data).image_shape
    if evaluation.n_images and not can_be_drawn(shape):
        yield (
            f"evaluation.n_images {evaluation.n_images} shows no pictures: images have {shape[0]} channels, and only "
            "1 (greyscale) and 3 (RGB) are drawn"
        )


def _of_diagnostics(diagnostics: DiagnosticsConfig, training: TrainingConfig, budget: Budget) -> Iterator[str]:
    """Yield notes about the settings of diagnostics."""
    if diagnostics.probe > budget.n_train:
        yield (
            f"diagnostics.probe {diagnostics.probe:,} is more than the {budget.n_train:,} training {budget.examples}: "
            "the probe batch has all of them"
        )
    if diagnostics.every > training.epochs:
        yield (
            f"diagnostics.every {diagnostics.every:,} is more than the {counted(training.epochs, 'epoch')} of a run: "
            "measured after the first and the last only"
        )


def _of_schedules(schedules: Iterable[Schedule], budget: Budget) -> Iterator[str]:
    """Yield a note for each schedule whose temperature never changes in these runs."""
    for schedule in schedules:
        parts = [schedule.forward, schedule.backward] if isinstance(schedule, Decoupled) else [schedule]
        for part in parts:
            if isinstance(part, SingleTau) and not isinstance(part, Constant | Learned):
                first, last = (
                    part.tau(step, steps_per_epoch=budget.steps_per_epoch, n_steps=budget.n_steps)
                    for step in (0, budget.n_steps - 1)
                )
                if first == last:
                    updates = counted(budget.n_steps, "update")
                    yield f"schedule {schedule.label} stays at {part.sets[0]} {short(first)} in runs of {updates}"
