"""`harness run --dry-run`: every run with its key and status, and how long the sweep would take on this machine."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import click
import torch
from torch import Tensor

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.catalogue import lookup
from harness.devices import missing_reason
from harness.forecast import Cost, run_seconds
from harness.quantities import duration
from harness.runner import Options
from harness.sweep import Sweep
from harness.train import State, start, train_step

Setting = tuple[str, str, int, str, str]

CALIBRATED_SETTINGS = 12
"""At most so many distinct settings are timed, evenly spaced; runs of the others are taken to cost their mean."""

N_TIMED = 4
"""So often an update, or a decoding, is timed; the fastest counts. The first one pays for what torch makes once."""

BUDGET_S = 2.0
"""No more settings are timed, and no more updates of one, once that much time has gone."""


def show(sweep: Sweep, options: Options, registry: Mapping[str, type[Estimator]]) -> None:
    """Print the plan to standard output."""
    click.echo("".join(f"{run.key}  {sweep.status(run):<11}  {run.name}\n" for run in sweep.selected), nl=False)
    for note in sweep.grid.notes:
        click.echo(f"note: {note}")
    to_do = sweep.to_do(retry_failed=options.retry_failed)
    reasons = {device: missing_reason(device) for device in {run.device for run in to_do}}
    on_cluster = options.ray is not None
    if on_cluster:
        click.echo("note: times are those of this machine; which devices the cluster has is seen when it runs")
    for reason in filter(None, reasons.values()):
        click.echo(f"{'not timed here' if on_cluster else 'to be skipped'}: {reason}")
    here = [run for run in to_do if reasons[run.device] is None]
    click.echo(f"{len(sweep.selected)} runs, {len(here)} to do here{estimate(here, options, registry)}.")


def estimate(runs: list[RunConfig], options: Options, registry: Mapping[str, type[Estimator]]) -> str:
    """Return how long the runs would take, as text; empty if there is none."""
    if not runs:
        return ""
    torch.set_num_threads(options.threads)
    costs = calibrate({setting(run): run for run in runs}, registry)
    mean = Cost(*(sum(values) / len(costs) for values in zip(*costs.values(), strict=True)))
    alike = defaultdict(list)
    for run in runs:
        alike[setting(run), budget(run)].append(run)
    seconds = sum(
        len(group) * run_seconds(group[0], costs.get(key, mean), registry) for (key, _), group in alike.items()
    )
    workers = min(options.workers, len(runs))
    return f": about {duration(seconds / workers)} with {workers} workers, judging by a few timed updates"


def setting(run: RunConfig) -> Setting:
    """Return what the cost of an update depends on."""
    return run.estimator.label, run.model.canonical, run.training.batch_size, run.training.optimizer, run.device


def budget(run: RunConfig) -> tuple[str, ...]:
    """Return what else the time of a run depends on: how much it trains, evaluates and diagnoses."""
    diagnosed = run.diagnostics.canonical if run.diagnostics else ""
    return run.data.canonical, str(run.training.epochs), run.training.compile, run.evaluation.canonical, diagnosed


def calibrate(distinct: Mapping[Setting, RunConfig], registry: Mapping[str, type[Estimator]]) -> dict[Setting, Cost]:
    """Time a few updates and decodings of random images, of the first setting and of as many as BUDGET_S allows."""
    costs: dict[Setting, Cost] = {}
    decode_s: dict[tuple[str, str], float] = {}  # by model and device: it is the same for every estimator
    chosen = list(distinct.items())[:: -(-len(distinct) // CALIBRATED_SETTINGS)]
    until = time.perf_counter() + BUDGET_S
    for key, run in chosen:
        if costs and time.perf_counter() > until:
            break
        state, x_BD = prepare(run, registry)
        model = run.model.canonical, run.device
        if model not in decode_s:
            decode_s[model] = time_decoding(state, run, until)
        costs[key] = Cost(time_update(state, x_BD, run, until), decode_s[model])
    return costs


def prepare(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> tuple[State, Tensor]:
    """Return the state of a run before its first update, and a batch of random images."""
    height, width = lookup(run.data.name).image_shape
    device = torch.device(run.device)
    state = start(run, registry, height * width, device)
    return state, torch.rand(run.training.batch_size, height * width, device=device)


def time_update(state: State, x_BD: Tensor, run: RunConfig, until: float) -> float:
    """Return the seconds of one update."""
    return fastest(lambda: train_step(state, x_BD, run.training.grad_clip)[0].item(), until)


def time_decoding(state: State, run: RunConfig, until: float) -> float:
    """Return the seconds of decoding one code."""
    codes = torch.rand(1000, run.model.n_latents, run.model.n_categories, device=run.device)
    with torch.no_grad():
        return fastest(lambda: state.vae.decode(codes).sum().item(), until) / len(codes)


def fastest(action: Callable[[], float], until: float) -> float:
    """Return the least of N_TIMED timings, in seconds; of fewer, but of one at least, once it is `until`."""
    taken: list[float] = []
    while not taken or (len(taken) < N_TIMED and time.perf_counter() < until):
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return min(taken)
