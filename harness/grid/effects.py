"""What settings come to on the data and the budget at hand: a note for each that changes nothing, with the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from harness.datasets.descriptions import DATASETS, split_sizes
from harness.schedules import Constant, Decoupled, Learned, Schedule, SingleTau, short

if TYPE_CHECKING:
    from harness.config import DataConfig, DiagnosticsConfig, EvaluationConfig, TrainingConfig


class Budget(NamedTuple):
    """The images that a run trains on, and its updates."""

    n_train: int
    steps_per_epoch: int
    n_steps: int


def budget(data: DataConfig, training: TrainingConfig) -> Budget:
    """Return what the runs of a setting have."""
    _, n_train = split_sizes(DATASETS[data.name], data.validation_fraction, data.train_size)
    steps_per_epoch = math.ceil(n_train / training.batch_size)
    return Budget(n_train, steps_per_epoch, steps_per_epoch * training.epochs)


def count(number: int, what: str) -> str:
    """Return such as `1 epoch` or `2,000 epochs`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def of_training(training: TrainingConfig, has: Budget) -> Iterator[str]:
    """Yield what the budget makes of the settings of training."""
    if training.batch_size > has.n_train:
        yield (
            f"training.batch_size {training.batch_size:,} is more than the {has.n_train:,} training images: "
            "each epoch is one update of all of them"
        )
    if training.lr_schedule != "constant" and has.n_steps == 1:
        yield f"training.lr_schedule {training.lr_schedule} changes nothing in runs of 1 update"


def of_evaluation(evaluation: EvaluationConfig, training: TrainingConfig) -> Iterator[str]:
    """Yield what the budget makes of the settings of evaluation."""
    if evaluation.validation_every > training.epochs:
        yield (
            f"evaluation.validation_every {evaluation.validation_every:,} is more than the "
            f"{count(training.epochs, 'epoch')} of a run: validated after the last one only"
        )


def of_diagnostics(diagnostics: DiagnosticsConfig, training: TrainingConfig, has: Budget) -> Iterator[str]:
    """Yield what the budget makes of the settings of diagnostics."""
    if diagnostics.probe > has.n_train:
        yield (
            f"diagnostics.probe {diagnostics.probe:,} is more than the {has.n_train:,} training images: "
            "the probe batch has all of them"
        )
    if diagnostics.every > training.epochs:
        yield (
            f"diagnostics.every {diagnostics.every:,} is more than the {count(training.epochs, 'epoch')} of a run: "
            "measured after the first and the last only"
        )


def of_schedules(schedules: Iterable[Schedule], has: Budget) -> Iterator[str]:
    """Yield which schedules never change their temperature: their first change comes too late, or is none."""
    for schedule in schedules:
        parts = [schedule.forward, schedule.backward] if isinstance(schedule, Decoupled) else [schedule]
        for part in parts:
            if isinstance(part, SingleTau) and not isinstance(part, Constant | Learned):
                first, last = (
                    part.tau(step, steps_per_epoch=has.steps_per_epoch, n_steps=has.n_steps)
                    for step in (0, has.n_steps - 1)
                )
                if first == last:
                    updates = count(has.n_steps, "update")
                    yield f"schedule {schedule.label} stays at tau {short(first)} in runs of {updates}"
