"""`harness run`: from a grid and options to a finished sweep."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from harness.commands.grid_argument import GridFile
from harness.commands.run_checks import check_data, check_memory_limit, saving_notes, select
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
    from harness.config import RunConfig
    from harness.grid.load import Grid
    from harness.options import Options, RayOptions
    from harness.plugins.registry import Registry


@click.command()
@grid_option
@click.option("--dry-run", is_flag=True, help="Print the runs, their status and an estimate of the time. Run nothing.")
@json_option
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: one per core.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Torch threads per worker.")
@click.option("--retry", type=click.Choice(["failed"]), help="Run failed and diverged runs again.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Retries of a run whose process dies or runs out of memory. Exceptions are final.",
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
@click.option("--save-models", is_flag=True, help="Keep the trained weights of each finished run, also in MLflow.")
@click.option("--fail-fast", is_flag=True, help="Stop the sweep at the first run that fails or diverges.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only runs with this setting: estimator=rloo, seed=0, training.lr=0.001, task=polynomial, task.p=2.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What computes the runs: processes on this machine, or a Ray cluster.",
)
@click.option(
    "--address", metavar="HOST:PORT", help="The Ray cluster. Default: a new one on this machine for this sweep."
)
@click.option(
    "--gpus-per-run",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    help="Share of a GPU that a cuda run uses on Ray. Default: 1.",
)
@click.option("--env", multiple=True, metavar="NAME", help="An environment variable to pass to Ray workers.")
@plugin_option
@no_check_option
@out_option
@uri_option
def run(grid_file: GridFile, dry_run: bool, as_json: bool, only: Sequence[str], no_check: bool, **given: Any) -> None:
    """Run a grid: estimators × schedules × devices × seeds. Finished runs are skipped.

    Ctrl-C finishes and saves the current epochs, a second Ctrl-C stops at once. The same command continues the sweep.

    Exit code: 0 all finished, 1 some run failed or diverged, 2 the input was refused, 130 interrupted.
    """
    from harness.plugins import quick_check
    from harness.plugins.registry import load_registry
    from harness.storage import plan

    options = make_options(given)
    plan_fingerprint = plan.plan_fingerprint(
        options.plugins
    )  # before the plug-ins are loaded: a later edit is then noticed
    registry = load_registry(options.plugins)
    grid = grid_file.load(registry, options.out)
    if only and grid.growth is not None:
        got = "got one that grows with its results. Remove estimators instead."
        raise Refused(f"--only: expected a grid whose runs are all known, {got}")
    selected = select(grid.runs, only)
    check_memory_limit(options.policy.memory_limit)
    checked = quick_check.check(selected, registry, skip=no_check)
    options = replace(
        named_grid(options, grid_file, grid.name), plan_fingerprint=plan_fingerprint, conformance=checked.conformance
    )
    if dry_run:
        show_plan(grid, selected, options, registry, checked.notes, as_json=as_json)
        return
    check_data(selected, registry)
    notes = (*grid.notes, *saving_notes(options.saving, selected), *checked.notes)
    sys.exit(run_grid(grid, selected, options, notes, as_json=as_json))


def make_options(given: Mapping[str, Any]) -> "Options":
    """Return the options of the command line, by the names that click gives them, without those that need the grid."""
    from harness.options import Options, Policy

    ray = ray_options(given)
    if ray is not None and given["memory_limit"] is not None:
        raise Refused("--memory-limit: expected none with --executor ray, where each node's Ray guards its own memory.")
    return Options(
        workers=given["workers"] or os.cpu_count() or 1,
        policy=Policy(given["retries"], time_limit_s=given["time_limit"], memory_limit=given["memory_limit"]),
        saving=given["saving"]._replace(model=given["save_models"]),
        retry_failed=given["retry"] == "failed",
        ray=ray,
        **{name: given[name] for name in ("out", "threads", "tracking_uri", "fail_fast", "plugins")},
    )


def ray_options(given: Mapping[str, Any]) -> "RayOptions | None":
    """Return the options for Ray, or None for local workers. Raises Refused for options that need --executor ray."""
    if given["executor"] == "local":
        if name := next((name for name in ("address", "gpus_per_run", "env") if given[name]), None):
            raise Refused(f"--{name.replace('_', '-')}: expected --executor ray with it, got --executor local.")
        return None
    from harness.options import RayOptions

    return RayOptions(given["address"], given["workers"], given["gpus_per_run"] or 1.0, given["env"])


def named_grid(options: "Options", grid_file: GridFile, name: str) -> "Options":
    """Return the options with the grid's path and the command, as later commands can use them."""
    from reports.contract.text import without_passwords

    folder = options.out / name
    return replace(
        options,
        grid_path=grid_file.stored_path(folder),
        keeps_grid=grid_file.text is not None,
        command=without_passwords(shlex.join(grid_file.with_path(given_command(), folder))),
    )


def show_plan(
    grid: "Grid",
    selected: Sequence["RunConfig"],
    options: "Options",
    registry: "Registry",
    notes: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Print the plan of `--dry-run`."""
    from harness import process_state
    from harness.status.dry_run import show
    from harness.storage import lease
    from harness.storage.sweep_state import read_sweep

    sweep = read_sweep(replace(grid, notes=(*grid.notes, *notes)), options.out, selected)
    if lease.holder(sweep.folder) is None:
        sweep.mark_interrupted("no driver is alive")
    with process_state.preserved():
        show(sweep, options, registry, as_json=as_json)


def run_grid(
    grid: "Grid", selected: Sequence["RunConfig"], options: "Options", notes: Sequence[str], *, as_json: bool
) -> int:
    """Run the sweep and show it; return the exit code."""
    from harness.status.json_document import document, to_text
    from harness.sweep.run import run_sweep

    progress = make_progress(make_console(stderr=as_json))
    for note in notes:
        progress.note(note)
    code = run_sweep(grid, options, progress, selected)
    if as_json:
        click.echo(to_text(document(progress.sweep, progress.next_commands, exit_code=code)))
    return code


def make_progress(console: Any) -> Any:
    """Return a live table on a terminal and plain lines elsewhere."""
    from harness.status.progress import LiveProgress, PlainProgress
    from harness.terminal import can_move_cursor

    return LiveProgress(console) if can_move_cursor(console.file) else PlainProgress(console)
