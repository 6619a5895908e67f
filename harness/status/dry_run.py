"""`harness run --dry-run`: every run with its key and status, and an estimate of the time on this machine."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click
import torch

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.sizes import sizes
from harness.devices import missing_reason
from harness.execution.forecast import Cost, makespan, run_seconds, uses_bound
from harness.options import Options
from harness.status.json_document import document, to_text
from harness.status.next_commands import NextCommand, without_words
from harness.status.time_left import median
from harness.storage.sweep_state import Sweep
from harness.tasks.categorical_vae import MAX_DECODED
from harness.tasks.draws import CodeDraws
from harness.tasks.splits import Batch, Splits, n_examples, take
from harness.train import train_step
from harness.training.state import State, start
from harness.units import duration

CostKey = tuple[str, str, int, str, str]

CALIBRATED_SETTINGS = 12
"""The largest number of distinct settings that are timed, evenly spaced. The others are assumed to cost the mean."""

N_TIMED = 5
"""How often an update or an evaluation is timed. The median is used because other processes may use the machine."""

BUDGET_S = 2.0
"""After this time, no further settings and no further updates of a setting are timed."""


class Forecast(NamedTuple):
    """The time that all runs would take, including `start_s` to start the driver and the workers."""

    seconds: float
    start_s: float
    workers: int
    n_runs: int


def show(sweep: Sweep, options: Options, registry: Mapping[str, type[Estimator]], *, as_json: bool = False) -> None:
    """Print the plan to standard output."""
    to_do = sweep.to_do(retry_failed=options.retry_failed)
    reasons = {device: missing_reason(device) for device in {run.device for run in to_do}}
    here = [run for run in to_do if reasons[run.device] is None]
    notes = dry_run_notes(sweep, list(filter(None, reasons.values())), on_cluster=options.ray is not None)
    if as_json:
        forecast = estimate(here, options, registry)
        more: dict[str, Any] = {"forecast": forecast._asdict() if forecast else None, "notes": notes}
        command = without_words(options.command, "--dry-run", "--json")
        click.echo(to_text(document(sweep, [NextCommand(command)] if here and not options.keeps_grid else [], **more)))
        return
    click.echo("".join(f"{run.key}  {sweep.status(run):<11}  {run.name}\n" for run in sweep.selected), nl=False)
    for note in notes:
        click.echo(note)
    click.echo(f"{len(sweep.selected)} runs, {len(here)} to do here{forecast_text(estimate(here, options, registry))}.")
    if (growth := sweep.grid.growth) is not None and not sweep.is_whole:
        click.echo(f"{_range(growth.at_least, growth.at_most)} runs in all, since the results decide which come next.")


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def dry_run_notes(sweep: Sweep, reasons: Sequence[str], *, on_cluster: bool) -> list[str]:
    """Return notes about the grid and about devices that this machine lacks."""
    lines = [f"note: {note}" for note in sweep.grid.notes]
    if on_cluster:
        lines.append("note: times are for this machine; the devices of the cluster are only known when it runs")
    return lines + [f"{'not timed here' if on_cluster else 'will be skipped'}: {reason}" for reason in reasons]


def forecast_text(forecast: Forecast | None) -> str:
    """Return the forecast as the end of a sentence, or an empty text for None."""
    if forecast is None:
        return ""
    start = f"including {duration(forecast.start_s)} to start"
    return f": about {duration(forecast.seconds)} with {forecast.workers} workers, {start}"


def estimate(runs: list[RunConfig], options: Options, registry: Mapping[str, type[Estimator]]) -> Forecast | None:
    """Return how long the runs would take, or None if there are none.

    The start counts twice the age of this process: the driver starts first, then each worker imports the same modules.
    """
    if not runs:
        return None
    start_s = 2 * process_age_s()
    torch.set_num_threads(options.threads)
    start_s += warm_up(runs[0], registry)
    costs = calibrate({cost_key(run): run for run in runs}, registry)
    mean = Cost(*(sum(values) / len(costs) for values in zip(*costs.values(), strict=True)))
    groups = defaultdict(list)
    for run in runs:
        groups[cost_key(run), budget_key(run)].append(run)
    seconds: list[float] = []
    for (key, _), group in groups.items():
        seconds += [run_seconds(group[0], costs.get(key, mean), registry)] * len(group)
    workers = min(options.workers, len(runs))
    return Forecast(start_s + makespan(seconds, workers), start_s, workers, len(runs))


def process_age_s() -> float:
    """Return the seconds since this process started."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


def warm_up(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> float:
    """Return the seconds of the first update and evaluation, which include what torch does once per process."""
    started = time.perf_counter()
    state, batch = first_state(run, registry)
    train_step(state, batch, run.training.grad_clip)
    with torch.no_grad():
        state.task.evaluate(take(batch, 1), CodeDraws(state.estimators))
    return time.perf_counter() - started


def cost_key(run: RunConfig) -> CostKey:
    """Return what the cost of an update depends on."""
    return run.estimator.label, model_key(run), run.training.batch_size, run.training.optimizer, run.device


def budget_key(run: RunConfig) -> tuple[str, ...]:
    """Return what else the time of a run depends on: how much it trains, evaluates and diagnoses."""
    diagnosed = run.diagnostics.canonical if run.diagnostics else ""
    training, evaluation = run.training, run.evaluation.canonical
    return model_key(run), run.data.canonical, str(training.epochs), training.compile, evaluation, diagnosed


def model_key(run: RunConfig) -> str:
    """Return what tells apart models that cost different times."""
    return run.task.canonical if run.task else run.model.canonical


def calibrate(distinct: Mapping[CostKey, RunConfig], registry: Mapping[str, type[Estimator]]) -> dict[CostKey, Cost]:
    """Time a few updates and evaluations of random images for as many settings as BUDGET_S allows, at least one."""
    costs: dict[CostKey, Cost] = {}
    decode_s: dict[tuple[str, str], float] = {}  # by model and device, since it hardly depends on the estimator
    chosen = list(distinct.items())[:: -(-len(distinct) // CALIBRATED_SETTINGS)]
    deadline = time.perf_counter() + BUDGET_S
    for key, run in chosen:
        if costs and time.perf_counter() > deadline:
            break
        state, batch = first_state(run, registry)
        model = model_key(run), run.device
        if model not in decode_s:
            decode_s[model] = time_evaluation(run, state, batch, deadline)
        costs[key] = Cost(time_update(state, batch, run, deadline), decode_s[model])
    return costs


def first_state(run: RunConfig, registry: Mapping[str, type[Estimator]]) -> tuple[State, Batch]:
    """Return the state of a run before its first update, and a batch: random images for the VAE."""
    device, batch_size = torch.device(run.device), run.training.batch_size
    if run.task is not None:
        state = start(run, registry, device)
        return state, state.splits.train_batch(torch.arange(min(batch_size, state.splits.n_train), device=device))
    images = sizes(run.data)
    images_BD = torch.rand(batch_size, images.n_pixels)
    state = start(run, registry, device, Splits(train=images_BD, test=images_BD, image_shape=images.image_shape))
    return state, images_BD.to(device)


def time_update(state: State, batch: Batch, run: RunConfig, deadline: float) -> float:
    """Return the seconds of one update."""
    return median_seconds(lambda: train_step(state, batch, run.training.grad_clip).gradient_sum.item(), deadline)


def time_evaluation(run: RunConfig, state: State, batch: Batch, deadline: float) -> float:
    """Return the seconds that the evaluation of one code takes; that of the final bound, if the task has one."""
    k = max(1, MAX_DECODED // n_examples(batch)) if uses_bound(run) else 1
    draw = CodeDraws(state.estimators, bound_samples=k)

    def evaluate() -> float:
        if uses_bound(run):
            return sum(state.task.test_measures(batch, draw).values())
        return sum(float(value.sum()) for value in state.task.evaluate(batch, draw).values())

    with torch.no_grad():
        return median_seconds(evaluate, deadline) / (k * n_examples(batch))


def median_seconds(action: Callable[[], float], deadline: float) -> float:
    """Return the median of N_TIMED timings in seconds. After `deadline`, fewer timings are made, but at least one."""
    taken: list[float] = []
    while not taken or (len(taken) < N_TIMED and time.perf_counter() < deadline):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return median(taken)
