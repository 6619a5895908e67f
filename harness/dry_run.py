"""`harness run --dry-run`: every run with its key and status, and how long the sweep would take on this machine."""

import time
from collections.abc import Mapping

import click
import torch

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.catalogue import lookup
from harness.devices import missing_reason
from harness.forecast import Cost, run_seconds
from harness.progress import duration
from harness.runner import Options, Sweep
from harness.train import start, train_step

CALIBRATED_SETTINGS = 12
"""At most so many distinct settings are timed; runs of the others are taken to cost their mean."""

LONGEST_S = 2.0
"""No more updates of a setting are timed once that much time has gone."""


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
