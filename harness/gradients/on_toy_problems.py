"""The estimators of a grid on the toy problems, and their tables for the terminal: what `harness gradients` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from estimators import Estimator
from harness import process_state
from harness.gradients.comparison import COLUMNS, MAX_CODES, measure
from harness.gradients.toy_problems import N_POINTS, TOYS, Toy
from harness.grid.load import Grid
from harness.schedules import short
from reports.contract.settings import Setting, distinct
from reports.contract.text import NAME_LENGTH, visible

if TYPE_CHECKING:
    import pandas as pd

    from harness.plugins.registry import Registry

__all__ = ["POINTS", "TOYS", "estimators", "frame", "tables"]

POINTS = f"{N_POINTS} random logits from N(0, 1), the same in every run of this command"


def estimators(grid: Grid, registry: Registry) -> dict[str, Estimator]:
    """Return every estimator of the grid by its label, at the first temperatures of each of its schedules."""
    built: dict[Setting, Estimator] = {}
    for run in grid.runs:
        first = run.schedule.temperatures(0, steps_per_epoch=1, n_steps=1)
        setting = Setting(run.estimator.label, None, tuple((key, short(value)) for key, value in first.items()))
        if setting not in built:
            with process_state.preserved():
                built[setting] = run.build_estimator(registry)
    texts = distinct(built, lambda one: visible(one.text, NAME_LENGTH), lambda one: one.quoted)
    return {texts[setting]: estimator for setting, estimator in built.items()}


def frame(toy: Toy, labelled: Mapping[str, Estimator], resamples: int, seed: int) -> pd.DataFrame:
    """Return one row per estimator, as `harness.diagnose.diagnose` does."""
    import pandas as pd

    by_width: dict[int, dict[str, Estimator]] = {}
    for label, estimator in labelled.items():
        by_width.setdefault(estimator.n_outputs(toy.n_categories), {})[label] = estimator
    rows: dict[str, dict[str, Any]] = {}
    for width, group in by_width.items():
        # a width of 0 is an estimator that needs more classes, as measure then says
        found, about = measure(toy.problem(max(1, width)), group, resamples, MAX_CODES, seed)
        rows |= found
    result = pd.DataFrame([{"estimator": label, **rows[label]} for label in labelled], columns=("estimator", *COLUMNS))
    result.attrs["truth"] = about.text
    return result


def tables(frames: Mapping[str, pd.DataFrame]) -> list[Table]:
    """Return two tables, estimators × toys: the relative bias, and the noise of one draw relative to the gradient."""
    return [
        _matrix("Relative bias (0: none found, –: not applicable, ?: too few draws)", frames, _bias),
        _matrix("Noise of one draw: standard deviation ÷ mean gradient", frames, _noise),
    ]


def _matrix(title: str, frames: Mapping[str, pd.DataFrame], text: Callable[[Any], str]) -> Table:
    result = Table(title=title, title_justify="left", box=None, pad_edge=False)
    result.add_column("estimator", overflow="fold", min_width=24)
    for name in frames:
        result.add_column(TOYS[name].heading, justify="right", no_wrap=True)
    columns = [[text(row) for row in frame.to_dict("records")] for frame in frames.values()]
    labels = next(iter(frames.values()))["estimator"]
    for label, *cells in zip(labels, *columns, strict=True):
        result.add_row(Text(label), *cells)
    return result


def _bias(row: Mapping[str, Any]) -> str:
    if row["reason"] or row["relative_bias"] != row["relative_bias"]:
        return "–"
    bias = row["relative_bias"]
    if row["relative_bias_low"] != row["relative_bias_low"]:
        return "?"
    if row["relative_bias_low"] <= 0 or bias < 5e-4:
        return "0"
    return f"{bias:.2f}" if bias < 10 else f"{bias:.0f}"


def _noise(row: Mapping[str, Any]) -> str:
    if row["reason"] or row["snr"] != row["snr"]:
        return "–"
    return f"{1 / row['snr']:.2g}" if row["snr"] > 0 else "∞"
