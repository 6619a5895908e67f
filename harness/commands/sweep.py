"""`harness run`, `harness sync` and `harness repair`: a grid, its runs and its journal."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.checks import check_data, check_memory_limit, saving_notes, select
from harness.commands.grid_argument import GridFile
from harness.commands.shared import (
    Refused,
    given_command,
    grid_option,
    json_option,
    make_console,
    no_check_option,
    out_option,
    plugin_option,
    uri_option,
)
from harness.units import DURATION, SAVING, SIZE

if TYPE_CHECKING:
    from harness.options import RayOptions, SavingEvery
    from harness.storage.journal import Journal


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
@no_check_option
@out_option
@uri_option
def run(
    grid_file: GridFile,
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
    no_check: bool,
    out: Path,
    tracking_uri: str | None,
) -> None:
    """Run a grid: estimators × schedules × devices × seeds. Finished runs are skipped.

    Ctrl-C lets the epochs under way end and saves their state; a second one stops at once. The same command goes on.

    Exit code: 0 all finished, 1 some run failed or diverged, 2 the input was refused, 130 interrupted.
    """
    from harness.options import Options, Policy
    from harness.plugins import quick_check
    from harness.plugins.registry import load_registry
    from harness.status.json_document import document, to_text
    from harness.storage import lease, plan
    from harness.storage.sweep_state import read_sweep
    from harness.sweep.run import run_sweep
    from reports.contract.text import without_passwords

    ray = ray_options(executor, address, workers, gpus_per_run, env)
    if ray is not None and memory_limit is not None:
        raise Refused("--memory-limit: expected none with --executor ray, where each node's Ray guards its own memory.")
    code_version = plan.made_by(plugins)  # before the classes load: an edit meanwhile then shows
    registry = load_registry(plugins)
    grid = grid_file.load(registry, out)
    selected = select(grid.runs, only)
    check_memory_limit(memory_limit)
    checked = quick_check.check(selected, registry, skip=no_check)
    options = Options(
        out=out,
        workers=workers or os.cpu_count() or 1,
        threads=threads,
        policy=Policy(retries=retries, time_limit_s=time_limit, memory_limit=memory_limit),
        saving=saving._replace(model=save_models),
        code_version=code_version,
        conformance=checked.conformance,
        tracking_uri=tracking_uri,
        retry_failed=retry == "failed",
        fail_fast=fail_fast,
        plugins=plugins,
        ray=ray,
        grid_path=grid_file.lasting(out / grid.name),
        keeps_grid=grid_file.text is not None,
        command=without_passwords(shlex.join(grid_file.named(given_command(), out / grid.name))),
    )
    if dry_run:
        from harness import process_state
        from harness.status.dry_run import show

        sweep = read_sweep(replace(grid, notes=(*grid.notes, *checked.notes)), out, selected)
        if lease.holder(sweep.folder) is None:
            sweep.take_for_interrupted("no driver is alive")
        with process_state.kept():
            show(sweep, options, registry, as_json=as_json)
        return
    check_data(selected)
    progress = make_progress(make_console(stderr=as_json))
    for note in (*grid.notes, *saving_notes(saving, selected), *checked.notes):
        progress.note(note)
    code = run_sweep(grid, options, progress, selected)
    if as_json:
        click.echo(to_text(document(progress.sweep, progress.next_commands, exit_code=code)))
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
    from harness.options import RayOptions

    return RayOptions(address, workers, gpus_per_run or 1.0, env)


def make_progress(console: Any) -> Any:
    """Return a live table on a terminal and plain lines elsewhere."""
    from harness.status.progress import LiveProgress, PlainProgress
    from harness.terminal import is_moving

    return LiveProgress(console) if is_moving(console.file) else PlainProgress(console)


@click.command()
@grid_option
@plugin_option
@out_option
def repair(grid_file: GridFile, plugins: Sequence[Path], out: Path) -> None:
    """Leave out what is damaged of a sweep's journal. What it told is run again; the damaged file is kept."""
    from harness.plugins.registry import load_registry
    from harness.storage.lease import Lease
    from harness.storage.repair import repair

    folder = grid_file.sweep_folder(out)  # which takes no plug-in
    name = folder.name if folder is not None else grid_file.load(load_registry(plugins), out).name
    journal = existing_journal(out, name)
    with Lease(journal.folder):
        done = repair(journal.folder)
    if done.kept_as is None:
        click.echo(f"{journal.path}: nothing is damaged.")
        return
    click.echo(f"{name}: {done.n_lines} damaged lines left out, and {done.n_runs} runs that have a gap since.")
    click.echo(f"The damaged journal is kept as {done.kept_as}. The command of the sweep goes on.")


def existing_journal(out: Path, name: str) -> "Journal":
    """Return the journal of a sweep. Raises Refused where there is none."""
    from harness.storage.journal import Journal

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
def sync(grid_file: GridFile, plugins: Sequence[Path], out: Path, tracking_uri: str | None) -> None:
    """Replay the journal of a grid into MLflow, storing nothing twice. Not while the grid is running."""
    from harness import tracking
    from harness.plugins.registry import load_registry
    from harness.storage.lease import Lease
    from harness.storage.sweep_state import read_sweep
    from harness.sweep.replay import sync_store
    from reports.contract.text import without_passwords

    grid = grid_file.load(load_registry(plugins), out)
    uri = tracking_uri or tracking.default_uri(out)
    journal = existing_journal(out, grid.name)
    with Lease(journal.folder):
        sweep = read_sweep(grid, out)
        try:
            tracker = tracking.Tracker(uri, out=out.absolute())
            replayed = sync_store(tracker, sweep)
        except tracking.STORE_ERRORS as error:
            raise Refused(f"{tracking.in_one_line(error)} {tracking.hint(error)}") from error
    for line in tracker.refusals.new_lines():
        click.echo(line)
    ended = [run for run in grid.runs if run.key in sweep.ends]
    there, former = len(ended) - replayed, len(sweep.ends) - len(ended)
    click.echo(f"{grid.name}: {replayed} runs replayed into {without_passwords(uri)}, {there} were there already.")
    if former:
        click.echo(f"{former} runs that this grid has no more were not replayed.")
