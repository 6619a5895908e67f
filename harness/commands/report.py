"""`harness report`: what a person takes away from a sweep, or from two."""

import hashlib
import math
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from harness.commands.shared import DEFAULT_OUT, FOLDER, Refused, default_out, store_uri, unwritable
from harness.environment import variable
from harness.units import DURATION
from reports.contract.sqlite_uri import DATABASE, sqlite_uri

if TYPE_CHECKING:
    from reports.page.context import Options
    from reports.store.frame import Runs

LOCAL_UI = "http://127.0.0.1:5000"
"""Where `harness ui` shows a store of files, which links of a report lead to."""


@click.command()
@click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="The grid's name. May be given several times. Default: the only experiment of the store.",
)
@click.option(
    "--baseline", metavar="ESTIMATOR", help="What the others are compared with; a whole setting is taken too."
)
@click.option("--metric", metavar="NAME", help="What settings are ranked by. Default: test/neg_elbo.")
@click.option("--group-by", metavar="NAME", help="Compare groups of settings: estimator, schedule, training.lr, …")
@click.option("--band", type=click.FloatRange(min=0), default=0.5, show_default=True, metavar="NATS",
              help="A difference that nobody would care about.")  # fmt: skip
@click.option("--title", help="Title of the report.")
@click.option("--all", "former", is_flag=True, help="Also runs that the grid has no more since it was edited.")
@click.option("--compare", nargs=2, metavar="A B",
              help="Instead: what changed from one sweep to another, each NAME or FOLDER/NAME.")  # fmt: skip
@click.option("--watch", type=DURATION, is_flag=False, flag_value="30s", metavar="[TIME]",
              help="Build it anew every 30s, or TIME, while the sweep runs.")  # fmt: skip
@click.option("--pdf", is_flag=True, help="Write figures/ as PDF too, which takes a quarter of a second each.")
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
@click.option("--attach", is_flag=True, help="Also make the report an artifact of the newest sweep in MLflow.")
@click.option(
    "--tracking-uri", metavar="URI", help="MLflow store. Default: $MLFLOW_TRACKING_URI, else SQLite in --from."
)
def report(
    experiments: Sequence[str],
    baseline: str | None,
    metric: str | None,
    group_by: str | None,
    band: float,
    title: str | None,
    former: bool,
    compare: tuple[str, str] | None,
    watch: float | None,
    pdf: bool,
    ui_url: str | None,
    results: Path,
    out: Path | None,
    attach: bool,
    tracking_uri: str | None,
) -> None:
    """Write report.html, tables/ and figures/ about a sweep, or about what changed from one to another."""
    from reports.ambient import import_matplotlib

    import_matplotlib()
    from reports.page.context import Options

    if compare and (watch or attach or group_by or experiments):
        raise Refused("--compare: expected neither --experiment, --watch, --attach nor --group-by with it.")
    if not math.isfinite(band):
        raise Refused(f"--band: expected a finite number of nats, got {band}.")
    refresh_s = max(5, round(watch)) if watch else None
    options = Options(baseline, metric, group_by, title, band, _ui(ui_url, tracking_uri), refresh_s)
    place = _Place(results, tracking_uri, out)
    place.check_out()
    if compare:
        _compare(compare, options, place)
    elif watch:
        _watch(lambda: _build(experiments, options, place, former=former, pdf=False, attach=attach), watch)
    else:
        _build(experiments, options, place, former=former, pdf=pdf, attach=attach)


class _Place(NamedTuple):
    """Where runs are read from, and where a report goes."""

    results: Path
    tracking_uri: str | None
    out: Path | None

    def uri(self) -> str:
        return self.tracking_uri or store_uri(self.results, "--from")

    def check_out(self) -> None:
        """Refuse to write a report about other results into a folder that `harness run --out` wrote to."""
        if self.out is None or self.tracking_uri or variable("MLFLOW_TRACKING_URI"):
            return
        if (self.out / "mlflow.db").exists() and self.out.resolve() != self.results.resolve():
            raise Refused(
                f"--out: expected a folder for the report, got the results {self.out}. "
                f"To report them: --from {shlex.quote(str(self.out))}"
            )


def _build(
    experiments: Sequence[str], options: "Options", place: _Place, *, former: bool, pdf: bool, attach: bool
) -> "Runs":
    """Read the store, write the report, say where it is; return the runs."""
    from reports import load
    from reports.report import build_report

    runs = load(experiments or None, place.uri(), former=former, results=place.results)
    folder = place.out or place.results / folder_name(runs.experiment.replace(", ", "-")) / "report"
    try:
        path = build_report(runs, folder, options, pdf=pdf)
    except OSError as error:
        raise unwritable(folder, error) from error
    click.echo(f"report: {path.absolute()}")
    if attach:
        click.echo(attached(place, experiments[0] if experiments else runs.experiment, path))
    return runs


def _compare(names: tuple[str, str], options: "Options", place: _Place) -> None:
    """Write the page about two sweeps, and say where it is."""
    from reports.compare import build_comparison

    one, other = (_load_named(name, place) for name in names)
    for runs in (one, other):
        folder_name(runs.experiment)
    folder = place.out or place.results / "compare" / comparison_name(names)
    try:
        path = build_comparison((names[0], one), (names[1], other), folder, options)
    except OSError as error:
        raise unwritable(folder, error) from error
    click.echo(f"report: {path.absolute()}")


def comparison_name(names: tuple[str, str]) -> str:
    """Return the name of a folder for two sweeps. A checksum stands for letters that it cannot have."""
    text = "-to-".join(names)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if len(name) <= 120 and re.fullmatch(r"[A-Za-z0-9._/-]+", text):
        return name
    return f"{name[:100]}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"


def _load_named(name: str, place: _Place) -> "Runs":
    """Load NAME from the store at hand, or FOLDER/NAME from the store in that folder."""
    from reports import load

    folder, experiment = Path(name).parent, Path(name).name
    if folder != Path() and (folder / DATABASE).exists():
        return load(experiment, sqlite_uri(folder / DATABASE))
    return load(name, place.uri(), results=place.results)


def _watch(build: Callable[[], "Runs"], every_s: float) -> None:
    """Build again and again until no sweep runs any more, or Ctrl-C. What goes wrong meanwhile is said, once a time."""
    from reports.contract.errors import ReportError

    click.echo(f"watching: a report every {every_s:g} s until the sweep ends; Ctrl-C stops")
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


def _ui(given: str | None, tracking_uri: str | None) -> str:
    """Return where links lead: what was given, else a server's own address without its password, else `harness ui`."""
    uri = given if given is not None else tracking_uri or variable("MLFLOW_TRACKING_URI") or ""
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # reading the store says what is wrong with it, without the password
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        if given is not None:
            raise Refused(f"--ui-url: expected http://… or https://…, got {given!r}.")
        return LOCAL_UI
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return given or f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def attached(place: _Place, experiment: str, path: Path) -> str:
    """Attach a report to its sweep in MLflow; say where it is. Raises Refused where the store does not take it."""
    from harness import tracking

    try:
        run = tracking.attach(place.uri(), experiment, path, place.results)
    except tracking.STORE_ERRORS as error:
        raise Refused(f"{tracking.in_one_line(error)} The report is written; the same command attaches it.") from error
    return f"attached: report/report.html of the run {run.run_name!r} in MLflow"


def folder_name(experiment: str) -> str:
    """Return the experiment's name if it may be that of a folder. Raises Refused: the store is not ours alone."""
    from harness.grid.naming import NAME, NAME_RULE

    if not NAME.fullmatch(experiment):
        raise Refused(
            f"experiment: expected {NAME_RULE}, to name a folder, got {experiment!r}. Give the folder: --out."
        )
    return experiment
