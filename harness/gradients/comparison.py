"""Estimators compared with the true gradient of one problem: a row of numbers for each, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from estimators import Estimator
from harness import process_state
from harness.gradients import draws, truth
from harness.gradients.draws import Draws, NotFiniteError
from harness.gradients.gradient_problem import GradientProblem, is_differentiable
from harness.gradients.quality import METRICS, N_BLOCKS, quality, relative_standard_error
from harness.training import seeding

MAX_CODES = 16_384
BUDGET = 100
"""Evaluations of the cost at which estimators are compared at equal cost."""
COLUMNS = (*METRICS, "relative_error_100", "evaluations", "seconds", "reason")
"""What a row holds."""
DRAWS, AVERAGE = 0, 1  # indices of the stream "diagnostics" of a seed

Row = dict[str, Any]
Projection = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TruthInfo:
    """What the true gradient is, in words, and its standard error relative to its norm: 0 if it is exact."""

    text: str
    error: float
    notes: tuple[str, ...] = ()
    """A line for each estimator that changed the state of the process. The change was put back."""


def measure(
    problem: GradientProblem,
    labelled: Mapping[str, Estimator],
    resamples: int,
    max_codes: int,
    seed: int,
    projections: Mapping[str, Projection] | None = None,
    trained: Collection[str] = (),
) -> tuple[dict[str, Row], TruthInfo]:
    """Return a row for each label, and what the true gradient is. Estimators are copied before they are used.

    `projections` map block means (J, B, L, H) to (J, P), such as the parameters of an encoder; their metrics have the
    projection's name and a slash before their own. By default there is one without a name: per example, on the logits.
    The labels in `trained` keep their running state and parameters; the other estimators that have some warm up first.
    """
    projections = projections or {"": draws.scaled}
    device = problem.logits_BLH.device
    with torch.enable_grad(), seeding.seeded(seed, "diagnostics", AVERAGE, device=device):
        differentiable = is_differentiable(problem)
        truths = _TrueGradients(problem, max_codes)
        rows: dict[str, Row] = {}
        changes: dict[str, list[str]] = {}
        for label, estimator in labelled.items():
            reason = not_applicable(estimator, problem, differentiable)
            rows[label] = {"reason": reason}
            if reason:
                continue
            truth_JBLH = truths.of(estimator)
            with process_state.preserved() as changed, seeding.seeded(seed, "diagnostics", DRAWS, device=device):
                changes[estimator.name] = changed
                copied = draws.prepared_copy(estimator, problem, warm_up=label not in trained)
                try:
                    found = draws.block_means(copied, problem, -(-resamples // N_BLOCKS))
                except NotFiniteError as error:
                    rows[label]["reason"] = str(error)
                    continue
            rows[label] |= _measured(found, estimator, problem, truth_JBLH, projections)
    notes = (process_state.change_note(name, changed) for name, changed in changes.items() if changed)
    return rows, replace(truths.info(), notes=tuple(notes))


def _measured(
    found: Draws,
    estimator: Estimator,
    problem: GradientProblem,
    truth_JBLH: Tensor,
    projections: Mapping[str, Projection],
) -> Row:
    """Return all numbers of a row."""
    row = _scores(found, truth_JBLH, projections, len(problem.logits_BLH))
    row["evaluations"] = estimator.n_cost_evals(problem.n_latents, problem.n_categories)
    row["seconds"] = found.seconds
    if "relative_bias" in row:
        row["relative_error_100"] = _error_at_equal_cost(row, truth_JBLH)
    return row


def _scores(found: Draws, truth_JBLH: Tensor, projections: Mapping[str, Projection], n_examples: int) -> Row:
    """Return the metrics of each projection, by its name."""
    norm = draws.norm(truth_JBLH)
    rounding = found.rounding / norm if norm > 0 else math.inf
    row: Row = {}
    for name, project in projections.items():
        gram = draws.gram(project(found.blocks_JBLH), project(truth_JBLH)).numpy()
        square = found.mean_square / n_examples if project is draws.scaled else None
        scores = quality(gram, found.draws_per_block, square, noisy=found.noisy, rounding=rounding)
        row |= {f"{name}/{key}" if name else key: value for key, value in scores.items()}
    return row


def _error_at_equal_cost(row: Row, truth_JBLH: Tensor) -> float:
    """Return √(bias² + variance · evaluations/100) / ‖∇‖; NaN if there is no gradient."""
    if math.isnan(row["relative_bias"]):
        return math.nan
    bias2 = max(0.0, row["mse"] - row["variance"])
    return math.sqrt(bias2 + row["variance"] * row["evaluations"] / BUDGET) / draws.norm(truth_JBLH)


def not_applicable(estimator: Estimator, problem: GradientProblem, differentiable: bool) -> str:
    """Return why an estimator cannot be measured on a problem; empty if it can."""
    n_latents, n_categories, width = problem.n_latents, problem.n_categories, problem.logits_BLH.shape[-1]
    try:
        estimator.check_shape(n_latents, n_categories)
    except ValueError as error:
        return str(error).removeprefix(f"{estimator.name}: ")
    if estimator.n_outputs(n_categories) != width:
        return f"it takes {estimator.n_outputs(n_categories)} logits for each variable, not {width}"
    if estimator.objective == "bound":
        return "its objective is a bound over several codes, not E[cost]"
    if not differentiable and not estimator.black_box:
        return "it needs the derivative of the cost, and this cost has none"
    return ""


class _TrueGradients:
    """The true gradient for each law of the codes, computed once."""

    def __init__(self, problem: GradientProblem, max_codes: int) -> None:
        self._problem, self._max_codes = problem, max_codes
        self._found: list[tuple[Tensor, Tensor]] = []

    def of(self, estimator: Estimator) -> Tensor:
        law_BLK = estimator.class_logits(self._problem.logits_BLH)
        for known_BLK, blocks_JBLH in self._found:
            if torch.equal(known_BLK, law_BLK):
                return blocks_JBLH
        found = truth.true_gradient(self._problem, estimator.class_logits, self._max_codes)
        self._found.append((law_BLK, found))
        return found

    def info(self) -> TruthInfo:
        if self._problem.expectation is not None:
            return TruthInfo("exact, in closed form", 0.0)
        count = f"{self._problem.n_categories}^{self._problem.n_latents}"
        if self._problem.n_codes <= self._max_codes:
            return TruthInfo(f"exact, by enumeration of {count} = {self._problem.n_codes} codes", 0.0)
        blocks = [draws.scaled(blocks_JBLH) for _, blocks_JBLH in self._found]
        error = max((relative_standard_error((each @ each.T).numpy()) for each in blocks), default=math.nan)
        return TruthInfo(
            f"the mean of {truth.DRAWS_PER_BLOCK * N_BLOCKS} draws of {truth.REFERENCE}(n_samples="
            f"{truth.N_SAMPLES}), as {count} codes are more than {self._max_codes}; its own standard error is "
            f"{error:.2g} of its norm",
            error,
        )
