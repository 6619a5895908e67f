"""`harness gradients`: the quality of a grid's estimators on small problems."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from harness.commands.grid_argument import GridFile
from harness.commands.shared import (
    given_command,
    grid_option,
    make_console,
    no_check_option,
    out_option,
    plugin_option,
    unwritable,
)


@click.command()
@grid_option
@click.option("--resamples", type=click.IntRange(min=64), default=1024, show_default=True, help="Draws per estimator.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@plugin_option
@no_check_option
@out_option
def gradients(
    grid_file: GridFile, resamples: int, seed: int, plugins: Sequence[Path], no_check: bool, out: Path
) -> None:
    """Compare the estimators of a grid with the true gradients of small problems, in half a minute.

    Shows bias with its interval, cosine, variance and cost. Each estimator has the first temperatures of its schedules.
    Writes gradients.html, gradients.csv, gradients.md and figures/ to gradients/NAME in --out.
    """
    from reports.process_settings import import_matplotlib

    import_matplotlib()
    from harness.gradients import on_toy_problems as toys
    from harness.plugins import quick_check
    from harness.plugins.registry import load_registry
    from reports.page import gradients as pages

    registry = load_registry(plugins)
    grid = grid_file.load(registry, out)
    checked = quick_check.check(grid.runs, registry, skip=no_check)
    for note in checked.notes:
        click.echo(f"note: {note}", err=True)
    console = make_console()
    estimators = toys.estimators(grid, registry)
    sections = []
    for name, toy in toys.TOYS.items():
        with console.status(f"{name}: {len(estimators)} estimators"):
            frame = toys.frame(toy, estimators, resamples, seed)
        sections.append(pages.Section(name, str(frame.attrs["truth"]), frame, toy.meaning))
    notes = {"Draws": f"{resamples} of each estimator", "Seed": str(seed), "Points": toys.POINTS}
    if checked.conformance is not None:
        notes["Conformance of plug-ins"] = checked.conformance
    command = shlex.join(given_command())
    folder = out / "gradients" / grid.name
    try:
        path = pages.write(sections, folder, title=grid.name, command=command, notes=notes)
    except OSError as error:
        raise unwritable(folder, error) from error
    for table in toys.tables({section.title: section.frame for section in sections}):
        console.print(table)
    click.echo(f"page: {path.absolute()}")
