"""`harness run --dry-run`: every run with its key and status, and how long the sweep would take on this machine."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.descriptions import lookup
from harness.devices import missing_reason
from harness.execution.forecast import Cost, makespan, run_seconds
from harness.options import Options
from harness.status.json_document import document, to_text
from harness.status.next_commands import Step, without_words
from harness.status.time_left import median
from harness.storage.sweep_state import Sweep
from harness.train import train_step
from harness.training.evaluate import MAX_DECODED, neg_bound
from harness.training.state import State, start
from harness.units import duration

Setting = tuple[str, str, int, str, str]

CALIBRATED_SETTINGS = 12
"""At most so many distinct settings are timed, evenly spaced; runs of the others are taken to cost their mean."""

N_TIMED = 5
"""So often an update, or an evaluation, is timed; the median counts, since others may use the machine meanwhile."""

BUDGET_S = 2.0
"""No more settings are timed, and no more updates of one, once that much time has gone."""


class Forecast(NamedTuple):
    """How long the runs would take, in all: the start of driver and workers, and so many workers' work."""

    seconds: float
    start_s: float
    workers: int
    n_runs: int


def show(sweep: Sweep, options: Options, registry: Mapping[str, type[Estimator]], *, as_json: bool = False) -> None:
    """Print the plan to standard output."""
    to_do = sweep.to_do(retry_failed=options.retry_failed)
    reasons = {device: missing_reason(device) for device in {run.device for run in to_do}}
    here = [run for run in to_do if reasons[run.device] is None]
    notes = remarks(sweep, list(filter(None, reasons.values())), on_cluster=options.ray is not None)
    if as_json:
        forecast = estimate(here, options, registry)
        more: dict[str, Any] = {"forecast": forecast._asdict() if forecast else None, "notes": notes}
        command = without_words(options.command, "--dry-run", "--json")
        click.echo(to_text(document(sweep, [Step(command)] if here and not options.keeps_grid else [], **more)))
        return
    click.echo("".join(f"{run.key}  {sweep.status(run):<11}  {run.name}\n" for run in sweep.selected), nl=False)
    for note in notes:
        click.echo(note)
    click.echo(f"{len(sweep.selected)} runs, {len(here)} to do here{in_words(estimate(here, options, registry))}.")


def remarks(sweep: Sweep, reasons: Sequence[str], *, on_cluster: bool) -> list[str]:
    """Return what is to be said about the grid and the devices that are missing here."""
    lines = [f"note: {note}" for note in sweep.grid.notes]
    if on_cluster:
        lines.append("note: times are those of this machine; which devices the cluster has is seen when it runs")
    return lines + [f"{'not timed here' if on_cluster else 'to be skipped'}: {reason}" for reason in reasons]


def in_words(forecast: Forecast | None) -> str:
    """Return the forecast as the end of a sentence; nothing of None."""
    if forecast is None:
        return ""
    start = f"{duration(forecast.start_s)} of them to start"
    return f": about {duration(forecast.seconds)} with {forecast.workers} workers, {start}"


def estimate(runs: list[RunConfig], options: Options, registry: Mapping[str, type[Estimator]]) -> Forecast | None:
    """Return how long the runs would take; None if there are none.

    A worker imports what this process has imported, once the driver has, and its first update pays as the first here.
    """
    if not runs:
        return None
    start_s = 2 * process_age_s()
    torch.set_num_threads(options.threads)
    start_s += warm_up(runs[0], registry)
    costs = calibrate({setting(run): run for run in runs}, registry)
    mean = Cost(*(sum(values) / len(costs) for values in zip(*costs.values(), strict=True)))
    alike = defaultdict(list)
    for run in runs:
        alike[setting(run), budget(run)].append(run)
    each: list[float] = []
    for (key, _), group in alike.items():
        each += [run_seconds(group[0], costs.get(key, mean), registry)] * len(group)
    workers = min(options.workers, len(runs))
    return Forecast(start_s + makespan(each, workers), start_s, workers, len(runs))


def process_age_s() -> float:
    """Return the seconds since this process began."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


def warm_up(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> float:
    """Return the seconds of what torch makes once a process, at the first update and the first evaluation."""
    begun = time.perf_counter()
    state, x_BD = prepare(run, registry)
    train_step(state, x_BD, run.training.grad_clip)
    neg_bound(state.vae, state.estimator, x_BD[:1], 1)
    return time.perf_counter() - begun


def setting(run: RunConfig) -> Setting:
    """Return what the cost of an update depends on."""
    return run.estimator.label, run.model.canonical, run.training.batch_size, run.training.optimizer, run.device


def budget(run: RunConfig) -> tuple[str, ...]:
    """Return what else the time of a run depends on: how much it trains, evaluates and diagnoses."""
    diagnosed = run.diagnostics.canonical if run.diagnostics else ""
    return run.data.canonical, str(run.training.epochs), run.training.compile, run.evaluation.canonical, diagnosed


def calibrate(distinct: Mapping[Setting, RunConfig], registry: Mapping[str, type[Estimator]]) -> dict[Setting, Cost]:
    """Time a few updates and evaluations of random images, of the first setting and of as many as BUDGET_S allows."""
    costs: dict[Setting, Cost] = {}
    decode_s: dict[tuple[str, str], float] = {}  # by model and device: it is nearly the same for every estimator
    chosen = list(distinct.items())[:: -(-len(distinct) // CALIBRATED_SETTINGS)]
    until = time.perf_counter() + BUDGET_S
    for key, run in chosen:
        if costs and time.perf_counter() > until:
            break
        state, x_BD = prepare(run, registry)
        model = run.model.canonical, run.device
        if model not in decode_s:
            decode_s[model] = time_evaluation(state, x_BD, until)
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
    return typical(lambda: train_step(state, x_BD, run.training.grad_clip)[0].item(), until)


def time_evaluation(state: State, x_BD: Tensor, until: float) -> float:
    """Return the seconds of evaluating one code, as the final bounds do it."""
    k = max(1, MAX_DECODED // len(x_BD))
    with torch.no_grad():
        return typical(lambda: neg_bound(state.vae, state.estimator, x_BD, k), until) / (k * len(x_BD))


def typical(action: Callable[[], float], until: float) -> float:
    """Return the median of N_TIMED timings, in seconds; of fewer, but of one at least, once it is `until`."""
    taken: list[float] = []
    while not taken or (len(taken) < N_TIMED and time.perf_counter() < until):
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return median(taken)
