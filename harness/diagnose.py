"""Which gradient estimators are right, and how noisy are they, at given logits and for a given cost?

frame = diagnose(logits, cost, estimators=["straight_through", "reinmax", build("rloo", n_samples=4)])
print(summary(frame))
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
from estimators.base import Cost, check_costs, check_count
from harness import gradient_draws, seeding
from harness.config import estimator_label
from harness.gradient_draws import Draws, NotFiniteError, Problem, Reference
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
    MSE per example, `relative_error_100` (how far the mean of as many draws as 100 evaluations pay for is from the true
    gradient, root mean square, relative to its norm), `evaluations` of the cost per example and draw, `seconds` per
    draw of the batch, and `reason`: why it is not applicable, or empty. `frame.attrs["truth"]` says what the truth is.
    Raises ValueError, one line.
    """
    import pandas as pd

    logits = _checked_logits(logits)
    resamples = check_count("diagnose", "resamples", resamples, at_least=MIN_RESAMPLES)
    max_codes = check_count("diagnose", "max_codes", max_codes)
    seed = check_count("diagnose", "seed", seed, at_least=0)
    given = logits.shape[-1] if n_categories is None else check_count("diagnose", "n_categories", n_categories)
    problem = Problem(logits, checked(cost), given, _checked_context(context, logits))
    rows, about = measure(problem, named(estimators), resamples, max_codes, seed)
    frame = pd.DataFrame([{"estimator": label, **row} for label, row in rows.items()], columns=COLUMNS)
    frame.attrs["truth"] = about.text
    return frame


BUDGET = 100
SUMMARY = ["Estimator", "Rel. bias", "95 % interval", "Cosine", "SNR", "Error", "Evals"]
COLUMNS = ("estimator", *METRICS, "relative_error_100", "evaluations", "seconds", "reason")


def summary(frame: pd.DataFrame) -> str:
    """Return the frame as a table for a terminal of 80 columns or so, and below it what is not applicable and why."""
    import pandas as pd

    from reports.gradients import refused, table

    shown = table(frame, "")
    texts = pd.DataFrame([[cell.text for cell in row] for row in shown.rows], columns=[c.title for c in shown.columns])
    lines = [texts.filter(SUMMARY).set_index("Estimator").rename_axis(None).to_string()] if len(texts) else []
    if frame.loc[frame["reason"] == "", "relative_bias"].isna().any():
        lines.append("–: the true gradient is 0, or no longer than rounding: nothing is relative to it")
    lines += [f"not applicable: {label}: {reason}" for label, reason in refused(frame)]
    return "\n".join([*lines, f"truth: {frame.attrs['truth']}"] if "truth" in frame.attrs else lines)


def plot(frame: pd.DataFrame, path: Path | str | None = None) -> Figure:
    """Draw relative bias, cosine and variance of the frame that `diagnose` returns; save it if there is a path."""
    from reports.gradients import figure

    drawn = figure(frame)
    if path is not None:
        drawn.savefig(path, bbox_inches="tight")
    return drawn


def named(estimators: Iterable[str | Estimator] | Mapping[str, Estimator] | None) -> dict[str, Estimator]:
    """Return estimators by label: the given one, or the name with each parameter that is not a default."""
    if estimators is None:
        estimators = list(REGISTRY)
    if isinstance(estimators, (str, Estimator)) or not isinstance(estimators, Iterable):
        raise ValueError(f"diagnose: expected a list of estimators, got {estimators!r}. Put it into brackets.")
    entries = list(estimators.values() if isinstance(estimators, Mapping) else estimators)
    built = [build(each) if isinstance(each, str) else each for each in entries]
    if not built:
        raise ValueError("diagnose: expected at least one estimator, got none. Leave them out for all there are.")
    for each in built:
        if not isinstance(each, Estimator):
            raise ValueError(f"diagnose: expected names of estimators or built ones, got {each!r}. Write build(…).")
    labels = list(estimators) if isinstance(estimators, Mapping) else [label_of(each) for each in built]
    labelled = dict(zip(map(str, labels), built, strict=True))
    if len(labelled) < len(built):
        raise ValueError("diagnose: expected each estimator once, got one again. Give labels: {'mine': build(...)}.")
    return labelled


def label_of(estimator: Estimator) -> str:
    """Return the name, with each parameter that is not a default: `rloo(n_samples=4)`."""
    defaults = parameters(type(estimator))
    given = {key: getattr(estimator, key) for key in defaults if hasattr(estimator, key)}
    plain = {key: value.item() if isinstance(value, Tensor) else value for key, value in given.items()}
    return estimator_label(estimator.name, {key: value for key, value in plain.items() if value != defaults[key]})


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
    with torch.enable_grad(), seeding.seeded(seed, "diagnostics", AVERAGE, device=device):
        differentiable = gradient_draws.is_differentiable(problem)
        truths = _Truths(problem, max_codes, reference)
        rows: dict[str, Row] = {}
        for label, estimator in labelled.items():
            reason = not_applicable(estimator, problem, differentiable)
            rows[label] = {"reason": reason}
            if reason:
                continue
            truth_JBLH = truths.of(estimator)
            with seeding.seeded(seed, "diagnostics", DRAWS, device=device):
                copied = gradient_draws.ready(estimator, problem, warm_up=label not in trained)
                try:
                    found = gradient_draws.block_means(copied, problem, -(-resamples // N_BLOCKS))
                except NotFiniteError as error:
                    rows[label]["reason"] = str(error)
                    continue
            rows[label] |= _scores(found, truth_JBLH, projections, len(problem.logits_BLH))
            evaluations = estimator.n_cost_evals(problem.n_latents, problem.n_categories)
            rows[label] |= {"evaluations": evaluations, "seconds": found.seconds}
            if "relative_bias" in rows[label]:
                rows[label]["relative_error_100"] = _error_at_equal_cost(rows[label], truth_JBLH)
    return rows, truths.about()


def _scores(found: Draws, truth_JBLH: Tensor, projections: Mapping[str, Projection], n_examples: int) -> Row:
    """The metrics of each projection, by its name."""
    norm = gradient_draws.norm(truth_JBLH)
    rounding = found.rounding / norm if norm > 0 else math.inf
    row: Row = {}
    for name, project in projections.items():
        gram = gradient_draws.gram(project(found.blocks_JBLH), project(truth_JBLH)).numpy()
        square = found.mean_square / n_examples if project is gradient_draws.scaled else None
        scores = quality(gram, found.draws_per_block, square, noisy=found.noisy, rounding=rounding)
        row |= {f"{name}/{key}" if name else key: value for key, value in scores.items()}
    return row


def _error_at_equal_cost(row: Row, truth_JBLH: Tensor) -> float:
    """√(bias² + variance · evaluations/100) / ‖∇‖; NaN where there is no gradient."""
    if math.isnan(row["relative_bias"]):
        return math.nan
    bias2 = max(0.0, row["mse"] - row["variance"])
    return math.sqrt(bias2 + row["variance"] * row["evaluations"] / BUDGET) / gradient_draws.norm(truth_JBLH)


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


def checked(cost: Cost) -> Cost:
    """Return the cost, with a ValueError in one line for whatever else than numbers (S, B) it returns.

    It is asked twice about the first codes: what is random in a cost would be taken for a bias.
    """
    if not callable(cost):
        raise ValueError(f"diagnose: expected a cost, a function of codes (S, B, L, K), got {cost!r}.")
    seen: list[bool] = []

    def asked(z_SBLK: Tensor) -> Tensor:
        cost_SB = check_costs("diagnose", cost(z_SBLK), z_SBLK.shape[:2])
        if not seen:
            seen.append(True)
            if not torch.equal(cost_SB.nan_to_num(), cost(z_SBLK).nan_to_num()):
                raise ValueError("diagnose: expected the same cost of the same code, got another. Turn off dropout.")
        return cost_SB

    return asked


def _checked_logits(logits: Any) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 3 or not logits.is_floating_point() or not logits.numel():
        got = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"diagnose: expected floating-point logits of shape (B, L, K), got {got}.")
    if not torch.isfinite(logits).all():
        raise ValueError("diagnose: expected finite logits, got NaN or ∞.")
    return logits.detach()


def _checked_context(context: Any, logits: Tensor) -> Tensor | None:
    if context is not None and (
        not isinstance(context, Tensor) or context.ndim != 2 or len(context) != len(logits) or context.is_complex()
    ):
        got = tuple(context.shape) if isinstance(context, Tensor) else type(context).__name__
        raise ValueError(f"diagnose: expected a context of shape (B, X), B = {len(logits)}, got {got}.")
    return context
