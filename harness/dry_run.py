"""`harness run --dry-run`: every run with its key and status, and how long the sweep would take on this machine."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import click
import torch

from estimators import Estimator, build
from harness.config import RunConfig
from harness.datasets.catalogue import lookup
from harness.devices import missing_reason
from harness.diagnostics import Diagnostics
from harness.progress import duration
from harness.runner import Options, Sweep
from harness.train import start, train_step

CALIBRATED_SETTINGS = 12
"""At most so many distinct settings are timed; runs of the others are taken to cost their mean."""

LONGEST_S = 2.0
"""No more updates of a setting are timed once that much time has gone."""


class Cost(NamedTuple):
    """Seconds of one update and of decoding one code, as measured here on random images."""

    step_s: float
    decode_s: float


def show(sweep: Sweep, options: Options, registry: Mapping[str, type[Estimator]]) -> None:
    """Print the plan to standard output."""
    for run in sweep.selected:
        click.echo(f"{run.key}  {sweep.status(run):<11}  {run.name}")
    for note in sweep.grid.notes:
        click.echo(f"note: {note}")
    to_do = sweep.to_do(retry_failed=options.retry_failed)
    reasons = {device: missing_reason(device) for device in {run.device for run in to_do}}
    for reason in filter(None, reasons.values()):
        click.echo(f"to be skipped: {reason}")
    here = [run for run in to_do if reasons[run.device] is None]
    click.echo(f"{len(sweep.selected)} runs, {len(here)} to do here{estimate(here, options, registry)}.")


def estimate(runs: list[RunConfig], options: Options, registry: Mapping[str, type[Estimator]]) -> str:
    """Return how long the runs would take, as text; empty if there is none."""
    if not runs:
        return ""
    torch.set_num_threads(options.threads)
    distinct = {setting(run): run for run in runs}
    costs = {key: calibrate(run, registry) for key, run in list(distinct.items())[:CALIBRATED_SETTINGS]}
    mean = Cost(*(sum(values) / len(costs) for values in zip(*costs.values(), strict=True)))
    seconds = sum(run_seconds(run, costs.get(setting(run), mean), registry) for run in runs)
    workers = min(options.workers, len(runs))
    return f": about {duration(seconds / workers)} with {workers} workers, judging by a few timed updates"


def setting(run: RunConfig) -> tuple[str, str, int, str, str]:
    """Return what the cost of an update depends on."""
    return run.estimator.label, run.model.canonical, run.training.batch_size, run.training.optimizer, run.device


def calibrate(run: RunConfig, registry: Mapping[str, type[Estimator]], n_steps: int = 6) -> Cost:
    """Time a few updates and decodings of random images; the fastest counts."""
    height, width = lookup(run.data.name).image_shape
    device = torch.device(run.device)
    state = start(run, registry, height * width, device)
    x_BD = torch.rand(run.training.batch_size, height * width, device=device)
    codes = torch.rand(1000, run.model.n_latents, run.model.n_categories, device=device)
    step_s: list[float] = []
    decode_s: list[float] = []
    while len(step_s) < n_steps and sum(step_s) < LONGEST_S:
        begun = time.perf_counter()
        train_step(state, x_BD, run.training.grad_clip)[0].item()
        step_s.append(time.perf_counter() - begun)
        with torch.no_grad():
            begun = time.perf_counter()
            state.vae.decode(codes).sum().item()
            decode_s.append(time.perf_counter() - begun)
    return Cost(min(step_s), min(decode_s) / len(codes))


def run_seconds(run: RunConfig, cost: Cost, registry: Mapping[str, type[Estimator]]) -> float:
    """Return the estimated seconds of one run: its updates, its validations, its diagnostics and its final bounds."""
    info = lookup(run.data.name)
    n_validation = round(info.n_train * run.data.validation_fraction)
    n_train = info.n_train - n_validation
    n_train = min(n_train, run.data.train_size or n_train)
    split = {"validation": n_validation, "train": n_train, "test": info.n_test}[run.evaluation.validation_split]
    n_steps = -(-n_train // run.training.batch_size) * run.training.epochs
    n_decoded = split * (run.training.epochs // run.evaluation.validation_every)
    n_decoded += info.n_test * (run.evaluation.test_samples + 1 + run.evaluation.bound_samples)
    n_decoded += n_diagnosed(run, registry)
    return n_steps * cost.step_s + n_decoded * 2 * cost.decode_s  # decoding and its likelihood


def n_diagnosed(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> int:
    """Return how many codes the diagnostics of a run evaluate."""
    if run.diagnostics is None:
        return 0
    settings, shape = run.diagnostics, (run.model.n_latents, run.model.n_categories)
    diagnostics = Diagnostics(run, settings, registry)
    times = sum(diagnostics.due(epoch) for epoch in range(1, run.training.epochs + 1))
    basket = [build(entry.name, registry, **entry.params) for entry in settings.basket]
    evaluations = sum(each.n_cost_evals(*shape) for each in (run.build_estimator(registry), *basket))
    return times * evaluations * settings.resamples * settings.probe
