"""The commands that the user may want to run next: continue, retry, sync the store, report."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.environment import path_variable
from harness.storage import last_command

if TYPE_CHECKING:
    from harness.options import Options
    from harness.storage.sweep_state import Sweep

CONTINUE = "run the same command again to continue"
RETRY = "run the same command with --retry failed to retry the failed runs"


class NextCommand(NamedTuple):
    """A command, and a shorter description of it if there is one."""

    command: str
    description: str = ""

    def __str__(self) -> str:
        return self.description or self.command


def after_run(sweep: "Sweep", options: "Options", *, interrupted: bool, lost: bool) -> list[NextCommand]:
    """Return the commands that follow `harness run`."""
    found = [NextCommand(options.command, CONTINUE)] if interrupted else []
    found += _tracebacks(sweep, options.grid_path, options.plugins, options.out)
    if n_bad(sweep):
        found.append(NextCommand(with_retry(options.command), RETRY))
    if lost and options.grid_path is not None:
        sync = _grid_command("sync", options.grid_path, options.plugins, options.out, options.tracking_uri)
        found.append(NextCommand(sync))
    return found + _report(sweep, options.out, options.tracking_uri)


def after_status(
    sweep: "Sweep", grid_path: Path | None, out: Path, plugins: Sequence[Path], *, driven: bool
) -> list[NextCommand]:
    """Return the commands that follow `harness status`, without those that a living driver makes unnecessary."""
    command = previous_command(sweep, grid_path, out) or _grid_command("run", grid_path, plugins, out, None)
    found = []
    driven = driven or grid_path is None
    if not driven and any(sweep.status(run) != "skipped" for run in sweep.to_do(retry_failed=False)):
        found.append(NextCommand(command))
    found += _tracebacks(sweep, grid_path, plugins, out)
    if not driven and n_bad(sweep):
        found.append(NextCommand(with_retry(command)))
    return found + _report(sweep, out, _option(shlex.split(command), "--tracking-uri"))


def previous_command(sweep: "Sweep", grid_path: Path | None, out: Path) -> str | None:
    """Return the command that last ran the sweep, if its grid and folder still have the same names."""
    known = last_command.read(sweep.folder)
    try:
        words = shlex.split(known.command) if known is not None else []
    except ValueError:
        return None
    if words[:2] != ["harness", "run"] or str(grid_path) not in words or "***" in " ".join(words):
        return None
    folder = _option(words, "--out") or str(path_variable("HARNESS_OUT") or "results")
    if Path(folder).absolute() != out.absolute():  # the folder may have been moved since
        return None
    return without_words(shlex.join(words), "--json")


def without_words(command: str, *words: str) -> str:
    """Return a command without these words."""
    return shlex.join(word for word in shlex.split(command) if word not in words)


def with_retry(command: str) -> str:
    """Return a command with `--retry failed`."""
    return command if "--retry" in command else f"{command} --retry failed"


def n_bad(sweep: "Sweep") -> int:
    """Return how many runs failed or diverged."""
    counts = sweep.counts()
    return counts["failed"] + counts["diverged"]


def _option(words: Sequence[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words[:-1] else None


def _report(sweep: "Sweep", out: Path, tracking_uri: str | None) -> list[NextCommand]:
    if not sweep.counts()["finished"] and not n_bad(sweep):
        return []
    return [NextCommand(last_command.report_command(sweep.grid.name, out, tracking_uri))]


def _tracebacks(sweep: "Sweep", grid_path: Path | None, plugins: Sequence[Path], out: Path) -> list[NextCommand]:
    if grid_path is None or not sweep.counts()["failed"]:
        return []
    command = _grid_command("status", grid_path, plugins, out, None) + " --tracebacks"
    return [NextCommand(command, f"{command} (in MLflow: error.txt of the run)")]


def _grid_command(
    name: str, grid_path: Path | None, plugins: Sequence[Path], out: Path, tracking_uri: str | None
) -> str:
    options = [part for plugin in plugins for part in ("--plugin", str(plugin))]
    return last_command.command_line([name, "--grid", str(grid_path), *options], "--out", out, tracking_uri)
