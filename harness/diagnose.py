"""Which gradient estimators are right, and how noisy are they, at given logits and for a given cost?

frame = diagnose(logits, cost, estimators=["straight_through", "reinmax", build("rloo", n_samples=4)])
print(frame)
plot(frame, "gradients.svg")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from estimators import REGISTRY, Estimator, build, parameters
from estimators.base import Cost
from harness import gradient_draws, seeding
from harness.config import estimator_label
from harness.gradient_draws import Problem, Reference
from harness.gradient_quality import METRICS, N_BLOCKS, quality, relative_standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MAX_CODES = 16_384
MIN_RESAMPLES = 2 * N_BLOCKS
DRAWS, AVERAGE = 0, 1  # indices of the stream "diagnostics" of a seed

Row = dict[str, Any]


@dataclass(frozen=True)
class About:
    """What the truth is, in words, and its own standard error relative to its norm: 0 where it is exact."""

    text: str
    error: float


Projection = Callable[[Tensor], Tensor]


def diagnose(
    logits: Tensor,
    cost: Cost,
    estimators: Iterable[str | Estimator] | Mapping[str, Estimator] | None = None,
    *,
    resamples: int = 1024,
    n_categories: int | None = None,
    max_codes: int = MAX_CODES,
    context: Tensor | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare estimators with the true gradient of E[cost(z)] at fixed logits.

    logits        (B, L, K): B examples, L categorical variables, K classes; never changed.
    cost          one-hot codes (S, B, L, K) -> (S, B). Without a derivative it is a black box, and estimators that need
                  one are not applicable.
    estimators    names, objects (`build("rloo", n_samples=4)`), or objects by a label of yours; None: all there are.
    resamples     draws of each estimator, at least 64; rounded up to a multiple of 32.
    n_categories  K, where an estimator's law takes another number of logits for each variable (`igr`).
    max_codes     up to so many codes K^L the truth is enumerated; beyond, it is an unbiased long average.
    context       the data (B, X) behind the logits, for estimators with an input-dependent baseline.

    Returns one row for each estimator: `estimator`, the columns of `harness.gradient_quality.METRICS` with variance and
    MSE per example, `evaluations` of the cost per example and draw, `seconds` per draw of the batch, and `reason`: why
    it is not applicable, or empty. `frame.attrs["truth"]` says what the truth is. Raises ValueError, one line.
    """
    import pandas as pd

    problem = Problem(logits.detach(), cost, n_categories or logits.shape[-1], context)
    _check(problem, resamples)
    labelled = named(estimators)
    rows, about = measure(problem, labelled, resamples, max_codes, seed)
    frame = pd.DataFrame([{"estimator": label, **row} for label, row in rows.items()], columns=COLUMNS)
    frame.attrs["truth"] = about.text
    return frame


COLUMNS = ("estimator", *METRICS, "evaluations", "seconds", "reason")


def plot(frame: pd.DataFrame, path: Path | str | None = None) -> Figure:
    """Draw relative bias, cosine and variance of the frame that `diagnose` returns; save it if there is a path."""
    from reports.gradients import figure

    drawn = figure(frame)
    if path is not None:
        drawn.savefig(path, bbox_inches="tight")
    return drawn


def named(estimators: Iterable[str | Estimator] | Mapping[str, Estimator] | None) -> dict[str, Estimator]:
    """Return estimators by label: the given one, or the name with each parameter that is not a default."""
    if isinstance(estimators, Mapping):
        return dict(estimators)
    built = [build(each) if isinstance(each, str) else each for each in estimators or REGISTRY]
    labelled = {label_of(each): each for each in built}
    if len(labelled) < len(built):
        raise ValueError("diagnose: expected each estimator once, got one again. Give labels: {'mine': build(...)}.")
    return labelled


def label_of(estimator: Estimator) -> str:
    """Return the name, with each parameter that is not a default: `rloo(n_samples=4)`."""
    defaults = parameters(type(estimator))
    given = {key: getattr(estimator, key) for key in defaults if hasattr(estimator, key)}
    return estimator_label(estimator.name, {key: value for key, value in given.items() if value != defaults[key]})


def measure(
    problem: Problem,
    labelled: Mapping[str, Estimator],
    resamples: int,
    max_codes: int,
    seed: int,
    projections: Mapping[str, Projection] | None = None,
    reference: Reference | None = None,
    trained: Collection[str] = (),
) -> tuple[dict[str, Row], About]:
    """Return a row for each label, and what the truth is. Estimators are copied before they are used.

    `projections` map block means (J, B, L, H) to (J, P), such as the parameters of an encoder; their metrics have the
    projection's name and a slash before their own. By default there is one without a name: per example, on the logits.
    The labels in `trained` keep their running state and parameters; the other estimators that have some warm up first.
    """
    projections = projections or {"": gradient_draws.scaled}
    reference, device = reference or Reference(), problem.logits_BLH.device
    differentiable = gradient_draws.is_differentiable(problem)
    with seeding.seeded(seed, "diagnostics", AVERAGE, device=device):
        truths = _Truths(problem, max_codes, reference)
        rows: dict[str, Row] = {}
        for label, estimator in labelled.items():
            reason = not_applicable(estimator, problem, differentiable)
            rows[label] = {"reason": reason}
            if reason:
                continue
            blocks_JBLH = truths.of(estimator)
            with seeding.seeded(seed, "diagnostics", DRAWS, device=device):
                copied = gradient_draws.ready(estimator, problem, warm_up=label not in trained)
                found = gradient_draws.block_means(copied, problem, -(-resamples // N_BLOCKS))
            for name, project in projections.items():
                gram = gradient_draws.gram(project(found.blocks_JBLH), project(blocks_JBLH)).numpy()
                on_logits = project is gradient_draws.scaled
                square = found.mean_square / len(problem.logits_BLH) if on_logits else None
                scores = quality(gram, found.draws_per_block, square)
                rows[label] |= {f"{name}/{key}" if name else key: value for key, value in scores.items()}
            rows[label]["evaluations"] = estimator.n_cost_evals(problem.n_latents, problem.n_categories)
            rows[label]["seconds"] = found.seconds
    return rows, truths.about()


def not_applicable(estimator: Estimator, problem: Problem, differentiable: bool) -> str:
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


class _Truths:
    """The truth for each law of the codes that comes up, computed once."""

    def __init__(self, problem: Problem, max_codes: int, reference: Reference) -> None:
        self._problem, self._max_codes, self._reference = problem, max_codes, reference
        self._found: list[tuple[Tensor, Tensor]] = []

    def of(self, estimator: Estimator) -> Tensor:
        law_BLK = estimator.class_logits(self._problem.logits_BLH)
        for known_BLK, blocks_JBLH in self._found:
            if torch.equal(known_BLK, law_BLK):
                return blocks_JBLH
        found = gradient_draws.truth(self._problem, estimator.class_logits, self._max_codes, self._reference)
        self._found.append((law_BLK, found))
        return found

    def about(self) -> About:
        if self._problem.expectation is not None:
            return About("exact, in closed form", 0.0)
        count = f"{self._problem.n_categories}^{self._problem.n_latents}"
        if self._problem.n_codes <= self._max_codes:
            return About(f"exact, by enumeration of {count} = {self._problem.n_codes} codes", 0.0)
        blocks = [gradient_draws.scaled(blocks_JBLH) for _, blocks_JBLH in self._found]
        error = max((relative_standard_error((each @ each.T).numpy()) for each in blocks), default=math.nan)
        reference = self._reference
        return About(
            f"the mean of {reference.draws_per_block * N_BLOCKS} draws of {reference.name}(n_samples="
            f"{reference.n_samples}), as {count} codes are more than {self._max_codes}; its own standard error is "
            f"{error:.2g} of its norm",
            error,
        )


def _check(problem: Problem, resamples: int) -> None:
    logits = problem.logits_BLH
    if logits.ndim != 3 or not logits.is_floating_point() or not logits.numel():
        raise ValueError(
            f"diagnose: expected floating-point logits of shape (B, L, K), got {logits.dtype} {tuple(logits.shape)}."
        )
    if not torch.isfinite(logits).all():
        raise ValueError("diagnose: expected finite logits, got NaN or ∞.")
    if resamples < MIN_RESAMPLES:
        raise ValueError(f"diagnose: expected resamples >= {MIN_RESAMPLES}, got {resamples}.")
