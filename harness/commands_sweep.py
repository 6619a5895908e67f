"""`harness run`, `harness sync` and `harness status`: a grid, its runs and its journal."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.command_line import (
    Refused,
    grid_option,
    json_option,
    load,
    make_console,
    out_option,
    plugin_option,
    uri_option,
)
from harness.quantities import DURATION, SAVING, SIZE

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.journal import Journal
    from harness.quantities import SavingEvery
    from harness.ray_executor import RayOptions


@click.command()
@grid_option
@click.option("--dry-run", is_flag=True, help="Print the runs, their status and an estimate of the time; run nothing.")
@json_option
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: one per core.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Torch threads per worker.")
@click.option("--retry", type=click.Choice(["failed"]), help="Run failed and diverged runs again.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Further tries of a run whose process dies or runs out of memory. Exceptions are not tried again.",
)
@click.option("--time-limit", type=DURATION, metavar="TIME", help="Stop a run that takes longer: 90s, 30m, 2h.")
@click.option("--memory-limit", type=SIZE, metavar="SIZE", help="Stop a run that uses more memory: 800MB, 4GB.")
@click.option(
    "--checkpoint-every",
    "saving",
    type=SAVING,
    default="60s",
    show_default=True,
    metavar="TIME|EPOCHS",
    help="How often a run saves its state: 30s, 5m, 3epochs, never.",
)
@click.option("--save-models", is_flag=True, help="Keep the trained weights of each run that finishes, in MLflow too.")
@click.option("--fail-fast", is_flag=True, help="Stop the sweep at the first run that fails or diverges.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only runs with this setting: estimator=rloo, seed=0, training.lr=0.001.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who computes the runs: processes of this machine, or a Ray cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="The Ray cluster. Default: one of this machine, for this sweep.")
@click.option(
    "--gpus-per-run",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    help="Share of a GPU that a run on cuda takes on Ray. Default: 1.",
)
@click.option("--env", multiple=True, metavar="NAME", help="An environment variable to carry to the workers of Ray.")
@plugin_option
@out_option
@uri_option
def run(
    grid_path: Path,
    dry_run: bool,
    as_json: bool,
    workers: int | None,
    threads: int,
    retry: str | None,
    retries: int,
    time_limit: float | None,
    memory_limit: float | None,
    saving: "SavingEvery",
    save_models: bool,
    fail_fast: bool,
    only: Sequence[str],
    executor: str,
    address: str | None,
    gpus_per_run: float | None,
    env: Sequence[str],
    plugins: Sequence[Path],
    out: Path,
    tracking_uri: str | None,
) -> None:
    """Run a grid: estimators × schedules × devices × seeds. Finished runs are skipped.

    Ctrl-C lets the epochs under way end and saves their state; a second one stops at once. The same command goes on.

    Exit code: 0 all finished, 1 some run failed or diverged, 2 the input was refused, 130 interrupted.
    """
    from harness import frozen, lease
    from harness.dispatch import Policy
    from harness.document import document, to_text
    from harness.plugins import load_registry
    from harness.runner import Options, run_sweep
    from harness.sweep import read_sweep
    from reports.visible import without_passwords

    ray = ray_options(executor, address, workers, gpus_per_run, env)
    if ray is not None and memory_limit is not None:
        raise Refused("--memory-limit: expected none with --executor ray, where each node's Ray guards its own memory.")
    made_by = frozen.made_by(plugins)  # before the classes load: an edit meanwhile then shows
    registry = load_registry(plugins)
    grid = load(grid_path, registry)
    selected = select(grid.runs, only)
    options = Options(
        out=out,
        workers=workers or os.cpu_count() or 1,
        threads=threads,
        policy=Policy(retries=retries, time_limit_s=time_limit, memory_limit=memory_limit),
        saving=saving._replace(model=save_models),
        made_by=made_by,
        tracking_uri=tracking_uri,
        retry_failed=retry == "failed",
        fail_fast=fail_fast,
        plugins=plugins,
        ray=ray,
        grid_path=grid_path,
        command=without_passwords(shlex.join(["harness", *sys.argv[1:]])),
    )
    if dry_run:
        from harness.dry_run import show

        sweep = read_sweep(grid, out, selected)
        if lease.holder(sweep.folder) is None:
            sweep.take_for_interrupted("no driver is alive")
        show(sweep, options, registry, as_json=as_json)
        return
    check_data(selected)
    progress = make_progress(make_console(stderr=as_json))
    for note in grid.notes:
        progress.say(f"note: {note}")
    code = run_sweep(grid, options, progress, selected)
    if as_json:
        click.echo(to_text(document(progress.sweep, progress.steps, exit_code=code)))
    sys.exit(code)


def ray_options(
    executor: str, address: str | None, workers: int | None, gpus_per_run: float | None, env: Sequence[str]
) -> "RayOptions | None":
    """Return what the command line says of Ray. Raises Refused where it says something without asking for Ray."""
    if executor == "local":
        given = {"--address": address, "--gpus-per-run": gpus_per_run, "--env": env}
        if name := next((name for name, value in given.items() if value), None):
            raise Refused(f"{name}: expected --executor ray with it, got --executor local.")
        return None
    from harness.ray_executor import RayOptions

    return RayOptions(address, workers, gpus_per_run or 1.0, env)


def select(runs: Sequence["RunConfig"], only: Sequence[str]) -> Sequence["RunConfig"]:
    """Return the runs that match every KEY=VALUE. Raises Refused where nothing does."""
    known = {name for run in runs for name in settings(run)} if only else set()
    for condition in only:
        key, separator, value = condition.partition("=")
        if not separator:
            raise Refused(f"--only: expected KEY=VALUE, got {condition!r}.")
        if key not in known:
            raise Refused(f"--only: expected one of {', '.join(sorted(known))}, got {key!r}.")
        values = sorted({settings(run).get(key, "–") for run in runs})
        matching = [run for run in runs if settings(run).get(key) == value]
        if not matching and (key, value) == ("schedule", "none"):  # no label: those without a temperature
            matching = [run for run in runs if run.setting.schedule is None]
        runs = matching
        if not runs:
            raise Refused(f"--only: expected {key} to be one of {', '.join(values)}, got {value!r}.")
    return runs


def settings(run: "RunConfig") -> dict[str, str]:
    """Return the settings of a run as text, by the names that `--only` takes."""
    named = {"estimator": run.estimator.name, "label": run.label}
    if run.setting.schedule is not None:
        named["schedule"] = run.setting.schedule
    return {**{name: str(value) for name, value in run.flat().items()}, **named}


def check_data(runs: Sequence["RunConfig"]) -> None:
    """Load each data set once, so that a missing or damaged one is refused before the first run. Raises DataError."""
    from harness.data import load

    for config in {run.data for run in runs}:
        load(config)


def make_progress(console: Any) -> Any:
    """Return a live table on a terminal and plain lines elsewhere."""
    from harness.progress import LiveProgress, PlainProgress

    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


@click.command()
@grid_option
@plugin_option
@out_option
def repair(grid_path: Path, plugins: Sequence[Path], out: Path) -> None:
    """Leave out what is damaged of a sweep's journal. What it told is run again; the damaged file is kept."""
    from harness.lease import Lease
    from harness.plugins import load_registry
    from harness.repair import repair

    grid = load(grid_path, load_registry(plugins))
    journal = existing_journal(out, grid.name)
    with Lease(journal.folder):
        done = repair(journal.folder)
    if done.kept_as is None:
        click.echo(f"{journal.path}: nothing is damaged.")
        return
    click.echo(f"{grid.name}: {done.n_lines} damaged lines left out, and {done.n_runs} runs that have a gap since.")
    click.echo(f"The damaged journal is kept as {done.kept_as}. The command of the sweep goes on.")


def existing_journal(out: Path, name: str) -> "Journal":
    """Return the journal of a sweep. Raises Refused where there is none."""
    from harness.journal import Journal

    journal = Journal(out / name)
    if not journal.path.exists():
        raise Refused(
            f"{journal.path}: expected the journal of a sweep, got none. Run the grid first, or give its --out."
        )
    return journal


@click.command()
@grid_option
@plugin_option
@out_option
@uri_option
def sync(grid_path: Path, plugins: Sequence[Path], out: Path, tracking_uri: str | None) -> None:
    """Replay the journal of a grid into MLflow, storing nothing twice. Not while the grid is running."""
    from harness import tracking
    from harness.lease import Lease
    from harness.plugins import load_registry
    from harness.replay import sync_store
    from harness.sweep import read_sweep
    from reports.visible import without_passwords

    grid = load(grid_path, load_registry(plugins))
    uri = tracking_uri or tracking.default_uri(out)
    journal = existing_journal(out, grid.name)
    with Lease(journal.folder):
        sweep = read_sweep(grid, out)
        try:
            replayed = sync_store(tracking.Tracker(uri, out=out.absolute()), sweep)
        except tracking.STORE_ERRORS as error:
            raise Refused(f"{tracking.in_one_line(error)} The same command goes on.") from error
    ended = [run for run in grid.runs if run.key in sweep.ends]
    there, former = len(ended) - replayed, len(sweep.ends) - len(ended)
    click.echo(f"{grid.name}: {replayed} runs replayed into {without_passwords(uri)}, {there} were there already.")
    if former:
        click.echo(f"{former} runs that this grid has no more were not replayed.")


@click.command()
@grid_option
@plugin_option
@out_option
@json_option
@click.option("--tracebacks", is_flag=True, help="Print the traceback of one run of each error.")
def status(grid_path: Path, plugins: Sequence[Path], out: Path, as_json: bool, tracebacks: bool) -> None:
    """Say what is done, running and failed of a grid, which setting is best so far, and what comes next."""
    from harness import status
    from harness.plugins import load_registry
    from harness.sweep import read_status, read_sweep

    sweep = read_status(grid_path, out, plugins) or read_sweep(load(grid_path, load_registry(plugins)), out)
    found = status.look(sweep, grid_path, out, plugins)
    if as_json:
        click.echo(status.to_text(found))
    else:
        status.show(make_console(), found, tracebacks=tracebacks)
