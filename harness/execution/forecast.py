"""Forecasts of how long runs take, from their configuration. They order the sweep and serve the dry run."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from estimators import Estimator, build
from harness.config import ModelConfig, RunConfig
from harness.datasets.sizes import sizes as sizes_of_images
from harness.gradients.during_training import Diagnostics

RUN_S = 0.03
"""Seconds that journal and store take per run (docs/speed.md)."""

COMPILE_S = 5.0
"""Seconds to load a compiled step that another run left on the disk. Compiling the first one takes 10 to 25."""


class Cost(NamedTuple):
    """Seconds, or other units, of one update and of evaluating one code (draw, decode, compare with the image)."""

    step_s: float
    decode_s: float


def longest_first(runs: Sequence[RunConfig], registry: Mapping[str, type[Estimator]]) -> list[RunConfig]:
    """Return the runs by descending forecast, so that no long run starts last. Ties keep their order."""
    return sorted(runs, key=lambda run: -run_seconds(run, nominal_cost(run, registry), registry))


def nominal_cost(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> Cost:
    """Return the cost in multiply-adds, which compares runs and is the same on every machine.

    An update encodes each image once and decodes it once per evaluation of the cost. The backward pass costs twice as
    much as the forward pass. Other tasks than the VAE count by the numbers of their codes.
    """
    pass_once = sum(n_latents * n_categories for n_latents, n_categories in run.layers.values())
    if run.task is None:
        pass_once = _multiply_adds(run.model, sizes_of_images(run.data).image_shape)
    n_evaluations = run.n_cost_evals(run.build_estimator(registry))
    return Cost(3 * run.training.batch_size * (1 + n_evaluations) * pass_once, 2 * pass_once)


def _multiply_adds(model: ModelConfig, image_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of the encoder, or of the decoder that mirrors it, for one image."""
    code, n_pixels = model.n_latents * model.n_categories, math.prod(image_shape)
    if model.backbone != "conv":
        sizes = (n_pixels, *(model.hidden if model.backbone == "mlp" else ()), code)
        return sum(first * second for first, second in pairwise(sizes))
    n_channels = n_pixels // math.prod(image_shape[-2:])
    widths = (n_channels, *model.channels)
    places = math.prod(image_shape[-2:])
    strided = [16 * first * second * (places // 4**i) for i, (first, second) in enumerate(pairwise(widths), 1)]
    return int(sum(strided)) + model.channels[-1] * code


def run_seconds(run: RunConfig, cost: Cost, registry: Mapping[str, type[Estimator]]) -> float:
    """Return the seconds of one run: updates, validation, diagnostics and final bounds."""
    sizes, evaluation = run.sizes, run.evaluation
    by_name = {"validation": sizes.n_validation, "train": sizes.n_train, "test": sizes.n_test}
    n_steps = -(-sizes.n_train // run.training.batch_size) * run.training.epochs
    n_kinds = 1 + registry[run.estimator.name].relaxes  # kinds of codes: the soft/hard gap needs both
    n_decoded = by_name[evaluation.validation_split] * n_kinds * -(-run.training.epochs // evaluation.validation_every)
    n_bound = evaluation.bound_samples if uses_bound(run) else 0
    n_decoded += sizes.n_test * (evaluation.test_samples + run.n_cost_evals(run.build_estimator(registry)) + n_bound)
    n_decoded += n_diagnosed(run, registry)
    compile_s = COMPILE_S if run.training.compile == "on" else 0.0
    return n_steps * cost.step_s + n_decoded * cost.decode_s + compile_s + RUN_S


def uses_bound(run: RunConfig) -> bool:
    """Return whether the task of a run evaluates a bound over several codes at the end."""
    return run.task is None or "bound_samples" in run.task.evaluation_settings


def epoch_costs(runs: Sequence[RunConfig], registry: Mapping[str, type[Estimator]]) -> dict[str, float]:
    """Return the cost of an epoch of each setting by label, in the units of `nominal_cost`."""
    first: dict[str, RunConfig] = {}
    for run in runs:
        first.setdefault(run.label, run)
    costs = {label: run_seconds(run, nominal_cost(run, registry), registry) for label, run in first.items()}
    return {label: cost / first[label].n_epochs for label, cost in costs.items()}


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return when the last run ends if the longest start first and each free worker takes the next one."""
    ends = [0.0] * workers
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def n_diagnosed(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> int:
    """Return how many codes the diagnostics of a run evaluate."""
    if run.diagnostics is None:
        return 0
    settings = run.diagnostics
    diagnostics = Diagnostics(run, settings, registry)
    times = sum(diagnostics.due(epoch) for epoch in range(1, run.training.epochs + 1))
    basket = [build(entry.name, registry, **entry.params) for entry in settings.basket]
    evaluations = sum(run.n_cost_evals(each) for each in (run.build_estimator(registry), *basket))
    return times * evaluations * settings.resamples * settings.probe
