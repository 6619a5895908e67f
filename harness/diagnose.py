"""Bias and noise of gradient estimators at given logits and for a given cost.

frame = diagnose(logits, cost, estimators=["straight_through", "reinmax", build("rloo", n_samples=4)])
print(summary(frame))
plot(frame, "gradients.svg")
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from estimators import REGISTRY, Estimator, build, parameters
from estimators.base import Cost, check_costs, check_count
from estimators.declarations import example
from harness.config import estimator_label
from harness.gradients.comparison import COLUMNS, MAX_CODES, measure
from harness.gradients.gradient_problem import GradientProblem
from harness.gradients.quality import N_BLOCKS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MIN_RESAMPLES = 2 * N_BLOCKS
SUMMARY = ["Estimator", "Rel. bias", "95 % interval", "Cosine", "SNR", "Error", "Evals"]


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

    logits        (B, L, K): B examples, L categorical variables, K classes; never changed. The variables may have any
                  shape, as in (B, K) or (B, H, W, K).
    cost          one-hot codes (S, *shape of the logits) -> (S, B). Without a derivative it is a black box, and
                  estimators that need one are not applicable.
    estimators    names, objects (`build("rloo", n_samples=4)`), or objects by a label of yours; None: all there are.
    resamples     draws of each estimator, at least 64; rounded up to a multiple of 32.
    n_categories  K, where an estimator's law takes another number of logits for each variable (`igr`).
    max_codes     up to so many codes K^L the truth is enumerated; beyond, it is an unbiased long average.
    context       the data (B, X) behind the logits, for estimators with an input-dependent baseline.

    Returns one row for each estimator: `estimator`, the columns of `harness.gradients.quality.METRICS` with variance
    and MSE per example, `relative_error_100` (how far the mean of as many draws as 100 evaluations pay for is from the
    true gradient, root mean square, relative to its norm), `evaluations` of the cost per example and draw, `seconds`
    per draw of the batch, and `reason`: why it is not applicable, or empty. `frame.attrs["truth"]` says what the truth
    is.
    Raises ValueError, one line.
    """
    import pandas as pd

    logits = _checked_logits(logits)
    cost, logits = checked_cost(cost, logits.shape), logits.reshape(len(logits), -1, logits.shape[-1])
    resamples = check_count("diagnose", "resamples", resamples, at_least=MIN_RESAMPLES)
    max_codes = check_count("diagnose", "max_codes", max_codes)
    seed = check_count("diagnose", "seed", seed, at_least=0)
    given = logits.shape[-1] if n_categories is None else check_count("diagnose", "n_categories", n_categories)
    problem = GradientProblem(logits, cost, given, _checked_context(context, logits))
    rows, about = measure(problem, by_label(estimators), resamples, max_codes, seed)
    for note in about.notes:
        warnings.warn(f"diagnose: {note}", stacklevel=2)
    frame = pd.DataFrame([{"estimator": label, **row} for label, row in rows.items()], columns=("estimator", *COLUMNS))
    frame.attrs["truth"] = about.text
    return frame


def summary(frame: pd.DataFrame) -> str:
    """Return the frame as a table for a terminal, and below it which estimators are not applicable, and why."""
    import pandas as pd

    from reports.page.gradients import refused, table

    shown = table(frame, "")
    texts = pd.DataFrame([[cell.text for cell in row] for row in shown.rows], columns=[c.title for c in shown.columns])
    lines = [texts.filter(SUMMARY).set_index("Estimator").rename_axis(None).to_string()] if len(texts) else []
    if frame.loc[frame["reason"] == "", "relative_bias"].isna().any():
        lines.append("–: the true gradient is 0, or no longer than rounding: nothing is relative to it")
    lines += [f"not applicable: {label}: {reason}" for label, reason in refused(frame)]
    return "\n".join([*lines, f"truth: {frame.attrs['truth']}"] if "truth" in frame.attrs else lines)


def plot(frame: pd.DataFrame, path: Path | str | None = None) -> Figure:
    """Draw relative bias, cosine and variance of the frame that `diagnose` returns; save it if there is a path."""
    from reports.page.gradients import figure

    drawn = figure(frame)
    if path is not None:
        drawn.savefig(path, bbox_inches="tight")
    return drawn


def by_label(estimators: Iterable[str | Estimator] | Mapping[str, Estimator] | None) -> dict[str, Estimator]:
    """Return estimators by label: the given one, or the name with each parameter that is not a default.

    Raises ValueError for what is no estimator, for none, and for a repeated label.
    """
    if estimators is None:
        estimators = [example(cls) for cls in REGISTRY.values()]
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


def checked_cost(cost: Cost, shape: Sequence[int]) -> Cost:
    """Return the cost of codes (S, B, L, K) with checks; it gets them in the shape (S, *shape) of the logits.

    Raises ValueError if it is no function, and where it returns anything but numbers (S, B), the same for equal codes.

    It is called twice for the first codes: a random cost would look like a bias.
    """
    if not callable(cost):
        raise ValueError(f"diagnose: expected a cost, a function of codes (S, B, L, K), got {cost!r}.")
    seen: list[bool] = []

    def asked(z_SBLK: Tensor) -> Tensor:
        z = z_SBLK.reshape(len(z_SBLK), *shape[:-1], z_SBLK.shape[-1])
        cost_SB = check_costs("diagnose", cost(z), z_SBLK.shape[:2])
        if not seen:
            seen.append(True)
            if not torch.equal(cost_SB.nan_to_num(), cost(z).nan_to_num()):
                raise ValueError("diagnose: expected the same cost of the same code, got another. Turn off dropout.")
        return cost_SB

    return asked


def _checked_logits(logits: Any) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim < 2 or not logits.is_floating_point() or not logits.numel():
        got = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"diagnose: expected floating-point logits of shape (B, …, K), got {got}.")
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
