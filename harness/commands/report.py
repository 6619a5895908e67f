"""`harness report`: the report about a sweep, or about the differences between two."""

import hashlib
import math
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from harness.commands.shared import DEFAULT_OUT, FILE, FOLDER, Refused, default_out, store_uri, unwritable
from harness.environment import variable
from harness.units import DURATION
from reports.contract.sqlite_uri import DATABASE, sqlite_uri

if TYPE_CHECKING:
    from reports.contract.measures import Better
    from reports.page.context import Options
    from reports.store.frame import Runs

LOCAL_UI = "http://127.0.0.1:5000"
"""The address of `harness ui`. Links of a report lead there unless the store is a server."""


@click.command()
@click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="The grid's name. Can be given several times. Default: the only experiment of the store.",
)
@click.option("--baseline", metavar="ESTIMATOR", help="The estimator or setting that the others are compared with.")
@click.option("--metric", metavar="NAME", help="The metric that settings are ranked by. Default: the task's first.")
@click.option("--group-by", metavar="NAME", help="Compare groups of settings: estimator, schedule, training.lr, …")
@click.option("--band", type=click.FloatRange(min=0), metavar="NUMBER",
              help="A difference too small to matter, in the metric's unit. Default: the task's.")  # fmt: skip
@click.option("--title", help="Title of the report.")
@click.option("--all", "with_removed", is_flag=True, help="Include runs that are no longer in the grid.")
@click.option("--compare", nargs=2, metavar="A B",
              help="Report what changed from sweep A to B instead. Each is NAME or FOLDER/NAME.")  # fmt: skip
@click.option("--from-csv", "csv", type=FILE, metavar="F",
              help="Report on the runs of a CSV file that anyone made (docs/runs-of-others.md).")  # fmt: skip
@click.option("--better", type=click.Choice(["lower", "higher"]), help="Of --from-csv: the direction of --metric.")
@click.option("--unit", metavar="TEXT", help="Of --from-csv: the unit of --metric.")
@click.option("--to-csv", "export", type=FILE, metavar="F", help="Also write all runs as one CSV for --from-csv.")
@click.option("--watch", type=DURATION, is_flag=False, flag_value="30s", metavar="[TIME]",
              help="Rebuild it every 30s, or TIME, while the sweep runs.")  # fmt: skip
@click.option("--pdf", is_flag=True, help="Also write figures/ as PDF, which takes a quarter of a second each.")
@click.option("--ui-url", metavar="URL", help=f"Where links to runs lead. Default: the server, or {LOCAL_UI}.")
@click.option(
    "--from",
    "results",
    type=FOLDER,
    default=default_out,
    show_default=DEFAULT_OUT,
    help="The folder that `harness run --out` wrote to.",
)
@click.option(
    "--out",
    type=FOLDER,
    show_default="NAME/report in --from",
    help="Folder for report.html, tables/ and figures/.",
)
@click.option("--attach", is_flag=True, help="Also store the report with the newest sweep in MLflow.")
@click.option(
    "--tracking-uri", metavar="URI", help="MLflow store. Default: $MLFLOW_TRACKING_URI, else SQLite in --from."
)
def report(
    experiments: Sequence[str],
    baseline: str | None,
    metric: str | None,
    group_by: str | None,
    band: float | None,
    title: str | None,
    with_removed: bool,
    compare: tuple[str, str] | None,
    csv: Path | None,
    better: "Better | None",
    unit: str | None,
    export: Path | None,
    watch: float | None,
    pdf: bool,
    ui_url: str | None,
    results: Path,
    out: Path | None,
    attach: bool,
    tracking_uri: str | None,
) -> None:
    """Write report.html, tables/ and figures/ about a sweep, or about the differences between two."""
    from reports.process_settings import import_matplotlib

    import_matplotlib()
    from reports.page.context import Options

    if compare and (watch or attach or group_by or experiments or export):
        raise Refused("--compare: expected neither --experiment, --watch, --attach, --group-by nor --to-csv with it.")
    if csv is None and (better or unit is not None):
        raise Refused("--better and --unit: expected --from-csv with them. A stored task declares its measures.")
    if csv and (compare or experiments or watch or attach or with_removed or tracking_uri):
        raise Refused(
            "--from-csv: expected neither --experiment, --compare, --watch, --attach, --all nor --tracking-uri with it."
        )
    if band is not None and not math.isfinite(band):
        raise Refused(f"--band: expected a finite number, got {band}.")
    refresh_s = max(5, round(watch)) if watch else None
    options = Options(baseline, metric, group_by, title, band, _ui_url(ui_url, tracking_uri), refresh_s)
    paths = _Paths(results, tracking_uri, out)
    paths.check_out()
    if compare:
        _compare(compare, options, paths)
    elif csv:
        _build_from_csv(csv, options, paths, better, unit, pdf=pdf, export=export)
    elif watch:
        _watch(lambda: _build(experiments, options, paths, with_removed, attach, pdf=False, export=export), watch)
    else:
        _build(experiments, options, paths, with_removed, attach, pdf=pdf, export=export)


class _Paths(NamedTuple):
    """Where runs are read from, and where the report is written."""

    results: Path
    tracking_uri: str | None
    out: Path | None

    def uri(self) -> str:
        return self.tracking_uri or store_uri(self.results, "--from")

    def check_out(self) -> None:
        """Refuse to write a report about other results into a results folder."""
        if self.out is None or self.tracking_uri or variable("MLFLOW_TRACKING_URI"):
            return
        if (self.out / "mlflow.db").exists() and self.out.resolve() != self.results.resolve():
            raise Refused(
                f"--out: expected a folder for the report, got the results {self.out}. "
                f"To report on them: --from {shlex.quote(str(self.out))}"
            )


def _build(
    experiments: Sequence[str],
    options: "Options",
    paths: _Paths,
    with_removed: bool,
    attach: bool,
    *,
    pdf: bool,
    export: Path | None,
) -> "Runs":
    """Read the store, write the report, print its path; return the runs."""
    from reports import load

    runs = load(experiments or None, paths.uri(), former=with_removed, results=paths.results)
    path = _write(runs, options, paths, pdf=pdf, export=export)
    if attach:
        click.echo(attach_report(paths, experiments[0] if experiments else runs.experiment, path))
    return runs


def _build_from_csv(
    csv: Path,
    options: "Options",
    paths: _Paths,
    better: "Better | None",
    unit: str | None,
    *,
    pdf: bool,
    export: Path | None,
) -> None:
    """Read the CSV, write the report, print its path."""
    from reports import from_csv
    from reports.store.log_rows import stored_name

    runs = from_csv(csv, measure=options.metric, better=better, unit=unit)
    metric = None if options.metric is None else stored_name(options.metric)
    _write(runs, replace(options, metric=metric), paths, pdf=pdf, export=export)


def _write(runs: "Runs", options: "Options", paths: _Paths, *, pdf: bool, export: Path | None) -> Path:
    """Write the report, and with ``export`` the CSV; print their paths; return that of the report."""
    from reports import to_csv
    from reports.report import build_report

    folder = paths.out or paths.results / folder_name(runs.experiment.replace(", ", "-")) / "report"
    try:
        path = build_report(runs, folder, options, pdf=pdf)
    except OSError as error:
        raise unwritable(folder, error) from error
    click.echo(f"report: {path.absolute()}")
    if export:
        try:
            click.echo(f"runs: {to_csv(runs, export).absolute()}")
        except OSError as error:
            raise Refused(f"--to-csv: expected a file to write to, got {export} ({error.strerror}).") from error
    return path


def _compare(names: tuple[str, str], options: "Options", paths: _Paths) -> None:
    """Write the page about two sweeps and print its path."""
    from reports.compare_sweeps import build_comparison

    one, other = (_load_named(name, paths) for name in names)
    for runs in (one, other):
        folder_name(runs.experiment)
    folder = paths.out or paths.results / "compare" / comparison_name(names)
    try:
        path = build_comparison((names[0], one), (names[1], other), folder, options)
    except OSError as error:
        raise unwritable(folder, error) from error
    click.echo(f"report: {path.absolute()}")


def comparison_name(names: tuple[str, str]) -> str:
    """Return a folder name for two sweeps. A checksum replaces characters that a name cannot have."""
    text = "-to-".join(names)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if len(name) <= 120 and re.fullmatch(r"[A-Za-z0-9._/-]+", text):
        return name
    return f"{name[:100]}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"


def _load_named(name: str, paths: _Paths) -> "Runs":
    """Load NAME from the given store, or FOLDER/NAME from the store in that folder."""
    from reports import load

    folder, experiment = Path(name).parent, Path(name).name
    if folder != Path() and (folder / DATABASE).exists():
        return load(experiment, sqlite_uri(folder / DATABASE))
    return load(name, paths.uri(), results=paths.results)


def _watch(build: Callable[[], "Runs"], every_s: float) -> None:
    """Rebuild the report until no sweep is running, or until Ctrl-C. Errors are printed, and it continues."""
    from reports.contract.errors import ReportError

    click.echo(f"watching: a new report every {every_s:g} s until the sweep ends; Ctrl-C stops")
    while True:
        try:
            runs = build()
        except ReportError as error:
            click.echo(str(error), err=True)
        else:
            counts = runs.runs["status"].value_counts()
            click.echo(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
            if not any(sweep.is_running for sweep in runs.sweeps):
                return
        time.sleep(every_s)


def _ui_url(given: str | None, tracking_uri: str | None) -> str:
    """Return the target of links: the given one, else the server's address without its password, else `harness ui`."""
    uri = given if given is not None else tracking_uri or variable("MLFLOW_TRACKING_URI") or ""
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # reading the store reports it, without the password
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        if given is not None:
            raise Refused(f"--ui-url: expected http://… or https://…, got {given!r}.")
        return LOCAL_UI
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return given or f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def attach_report(paths: _Paths, experiment: str, path: Path) -> str:
    """Attach a report to its sweep in MLflow; return a line that says where. Raises Refused if the store refuses it."""
    from harness import tracking

    try:
        run = tracking.attach(paths.uri(), experiment, path, paths.results)
    except tracking.STORE_ERRORS as error:
        raise Refused(f"{tracking.in_one_line(error)} The report is written. Try again to attach it.") from error
    return f"attached: report/report.html of the run {run.run_name!r} in MLflow"


def folder_name(experiment: str) -> str:
    """Return the experiment's name if it can name a folder, else raise Refused. Others may write to the store."""
    from harness.grid.name_and_texts import NAME_PATTERN, NAME_RULE

    if not NAME_PATTERN.fullmatch(experiment):
        raise Refused(
            f"experiment: expected {NAME_RULE}, to name a folder, got {experiment!r}. Give the folder with --out."
        )
    return experiment
