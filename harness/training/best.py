"""The best epoch of a run by its validation, for `evaluation.checkpoint: best`."""

import copy
from collections.abc import Mapping

from harness.config import RunConfig
from harness.training.state import Best, State, parameters, set_parameters


def keep_best(run: RunConfig, state: State, metrics: Mapping[str, float]) -> None:
    """Keep a copy of the parameters if the epoch is better than all before it, by the measure that ranks.

    Of equal epochs the first one counts. Nothing is done without a validation in `metrics`, or if the run evaluates its
    last parameters. Raises ValueError if the validation lacks the measure.
    """
    if run.evaluation.checkpoint == "last" or "val/loss" not in metrics:
        return
    measure = run.measures[0]
    if measure.validation_metric not in metrics:
        raise ValueError(
            f"evaluation.checkpoint: expected last, as {run.task_name} has no {measure.validation_metric}, got best."
        )
    value = metrics[measure.validation_metric]
    is_better = state.best is None or (
        value < state.best.value if measure.better == "lower" else value > state.best.value
    )
    if is_better:
        state.best = Best(state.epoch, value, copy.deepcopy(parameters(state)))


def return_to_best(state: State) -> dict[str, float]:
    """Set the parameters of the best epoch, if one was kept, and return its number as a metric."""
    if state.best is None:
        return {}
    set_parameters(state, state.best.parameters)
    return {"evaluation/epoch": float(state.best.epoch)}
