"""The final metrics that settings are compared by: names, units, and which direction is better."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from reports import statistics as st
from reports.contract import stored_run as names
from reports.contract.errors import ReportError
from reports.contract.measures import HIGHER, LOWER, Better, DeclaredMeasure
from reports.store.tasks import is_vae, measures_of

NATS = "nats"
VAE_BAND = 0.5
"""Nats: the smallest difference between losses of the VAE that matters."""


@dataclass(frozen=True)
class Metric:
    """A final metric; ``compared`` if one direction is better and a baseline makes sense.

    Statistics are of values for which lower is better: ``sign`` turns values into those, and results back.
    """

    name: str
    title: str
    meaning: str
    compared: bool = True
    unit: str = ""
    digits: int = 2  # decimals
    better: Better = LOWER
    band: float | None = None  # the smallest difference that matters, in the unit; None if there is no such number
    value_unit: str = ""  # the unit of a value, if it is not that of a difference: "nats per example"

    @property
    def sign(self) -> int:
        """1 if lower is better, −1 if higher is."""
        return -1 if self.better == HIGHER else 1

    @property
    def worst(self) -> float:
        """What a failed run counts as."""
        return self.sign * math.inf

    @property
    def best(self) -> str:
        """``lowest`` or ``highest``."""
        return "highest" if self.better == HIGHER else "lowest"

    @property
    def per(self) -> str:
        """The unit of a value: ``nats per example``."""
        return self.value_unit or self.unit

    @property
    def axis(self) -> str:
        """The label of an axis: the name and the unit."""
        return f"{self.name}, {self.per}" if self.per else self.name

    def turned(self, interval: st.Interval) -> st.Interval:
        """Return an interval of turned values as one of the values themselves, or the other way round."""
        return interval if self.sign > 0 else interval.mirrored


_HIGHER_IS_BETTER = ("images_per_s", "cosine", "cosine_low", "cosine_high", "snr", "compiled")
_UNITS = ((names.TIME_PREFIX, "s"), (names.MEMORY_PREFIX, "MB"), (names.ENTROPY, NATS))
_NO_LOSS = (
    names.TIME_PREFIX,
    names.MEMORY_PREFIX,
    names.COST_PREFIX,
    names.LATENT_PREFIX,
    names.GRADIENT_PREFIX,
    names.EVALUATED_EPOCH,
    "compiled",
    "tau",
)


def metrics(runs: pd.DataFrame, first: str | None = None, band: float | None = None) -> list[Metric]:
    """Return the final metrics that at least one run has, most important first; ``first`` before them, if given.

    They are those that the task declares; of the VAE, also the relaxed loss. ``band`` replaces the smallest difference
    that matters, of the first metric and of those with its unit.

    Raises ReportError where no run has that one, and for runs of several tasks.
    """
    there = [metric for metric in _usual(runs) if metric.name in runs and runs[metric.name].notna().any()]
    found = there if first is None else [_asked(runs, first, there), *(one for one in there if one.name != first)]
    if band is None or not found:
        return found
    unit = found[0].unit
    return [replace(one, band=band) if i == 0 or (unit and one.unit == unit) else one for i, one in enumerate(found)]


def metric_of(runs: pd.DataFrame, metric: Metric | str) -> Metric:
    """Return the metric of a name, with the direction that the task of the runs declares for it."""
    if isinstance(metric, Metric):
        return metric
    return next((one for one in _usual(runs) if one.name == metric), None) or _other(runs, metric)


def curve_metric(runs: pd.DataFrame, history: pd.DataFrame, primary: Metric | None) -> Metric | None:
    """Return what curves, targets and budgets show: the validation metric of the measure that ranks, else a loss.

    None where the runs have no history of one.
    """
    measures = measures_of(runs)
    ranking = [one for one in measures if primary is not None and one.metric == primary.name]
    known = [one.validation for one in (*ranking, *measures[:1])]
    wanted = (*known, names.VAL_LOSS, names.TRAIN_LOSS)
    name = next((name for name in wanted if name in history and history[name].notna().any()), None)
    if name is None:
        return None
    return _other(history, name, measures, vae=is_vae(runs))


def bound_samples(runs: pd.DataFrame) -> str:
    """Return k of the importance-weighted bound, from the configuration; several if the runs differ."""
    if names.PARAM_BOUND_SAMPLES not in runs:
        return "?"
    numbers = pd.to_numeric(runs[names.PARAM_BOUND_SAMPLES], errors="coerce")
    return ", ".join(f"{k:g}" for k in sorted(set(numbers.dropna()))) or "?"


def _usual(runs: pd.DataFrame) -> list[Metric]:
    """Return the metrics of the task, the first of which ranks settings."""
    measures = measures_of(runs)
    if not is_vae(runs):
        found = [_declared(runs, measure) for measure in measures]
        return found or [Metric(names.TEST_LOSS, "Loss", "one-hot samples, test examples", digits=2)]
    of_vae = {metric.name: metric for metric in _of_vae(runs)}
    stated = {one.metric: one for one in measures}
    found = [replace(metric, better=stated[name].better, band=stated[name].band) if name in stated else metric
             for name, metric in of_vae.items()]  # fmt: skip
    return [*found, *(_declared(runs, one) for name, one in stated.items() if name not in of_vae)]


def _of_vae(runs: pd.DataFrame) -> list[Metric]:
    k = bound_samples(runs)
    return [
        _loss(names.TEST_NEG_ELBO, "Negative ELBO", "one-hot samples, test images: what the model is used as"),
        _loss(names.TEST_NEG_BOUND, f"Negative bound, k = {k}", f"importance-weighted with k = {k} one-hot samples"),
        _loss(names.TEST_RELAXED_LOSS, "Relaxed loss", "test images with the relaxed codes seen in training"),
        replace(
            _loss(names.TEST_GAP, "Soft/hard gap", "negative ELBO − relaxed loss: what rounding costs"), compared=False
        ),
    ]


def _loss(name: str, title: str, meaning: str) -> Metric:
    """Return a loss of the VAE."""
    return Metric(name, title, meaning, unit=NATS, band=VAE_BAND, value_unit=f"{NATS} per example")


def _declared(runs: pd.DataFrame, measure: DeclaredMeasure) -> Metric:
    words = measure.title if measure.title != measure.name else measure.name.replace("_", " ")
    title = words[:1].upper() + words[1:]
    meaning = f"{measure.better} is better" + (f", {measure.unit}" if measure.unit else "")
    digits = _digits(runs, measure.metric)
    return Metric(measure.metric, title, meaning, True, measure.unit, digits, measure.better, measure.band)


def _asked(runs: pd.DataFrame, name: str, usual: Sequence[Metric]) -> Metric:
    """Return the metric that was asked for. Raises ReportError where no run has it."""
    there = sorted(str(name) for name in runs.columns if "/" in str(name) and runs[name].notna().any())
    if name not in there:
        near = difflib.get_close_matches(name, there, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        listed = ", ".join(there) or "none, as no run finished"
        raise ReportError(f"--metric: expected one of {listed}; got '{name}'.{hint}")
    return next((one for one in usual if one.name == name), None) or _other(runs, name, measures_of(runs))


def _other(
    values: pd.DataFrame, name: str, measures: Sequence[DeclaredMeasure] = (), *, vae: bool | None = None
) -> Metric:
    """Return a metric that is not one of the usual, with its unit and the decimals that fit its size."""
    vae = is_vae(values) if vae is None else vae
    measure = next((one for one in measures if one.validation == name), None)
    if measure is not None and not vae:
        return replace(_declared(values, measure), name=name, title=name, digits=_digits(values, name))
    better = HIGHER if name.endswith(_HIGHER_IS_BETTER) else LOWER
    unit = next((unit for start, unit in _UNITS if name.startswith(start)), "")
    meaning = f"asked for with --metric; {better} is taken for better"
    if vae and (unit == NATS or not name.startswith(_NO_LOSS)):
        return replace(_loss(name, name, meaning), better=better)
    return Metric(name, name, meaning, True, unit, _digits(values, name), better)


def _digits(values: pd.DataFrame, name: str) -> int:
    """Return the decimals that show four figures of most values, but two at least."""
    size = float(values[name].abs().median()) if name in values else math.nan
    return min(12, max(2, 3 - math.floor(math.log10(size)))) if size > 0 else 2
