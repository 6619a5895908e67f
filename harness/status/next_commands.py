"""The commands that a sweep leads to, to be copied: run it on, try again, bring its store up to date, report."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.environment import path_variable
from harness.storage import last_command
from reports.contract.text import without_passwords

if TYPE_CHECKING:
    from harness.options import Options
    from harness.storage.sweep_state import Sweep

GOES_ON = "the same command again goes on where this stopped"


class NextCommand(NamedTuple):
    """A command, and other words for it where those are shorter."""

    command: str
    words: str = ""

    def __str__(self) -> str:
        return self.words or self.command


def after_run(sweep: "Sweep", options: "Options", *, interrupted: bool, lost: bool) -> list[NextCommand]:
    """Return what comes after `harness run`."""
    next_commands = [NextCommand(options.command, GOES_ON)] if interrupted else []
    next_commands += _tracebacks(sweep, options.grid_path, options.plugins, options.out)
    if n_bad(sweep):
        next_commands.append(
            NextCommand(retry(options.command), "the same command with --retry failed tries the failed runs again")
        )
    if lost and options.grid_path is not None:
        next_commands.append(NextCommand(sync_command(options)))
    if sweep.counts()["finished"] or n_bad(sweep):
        next_commands.append(
            NextCommand(last_command.report_command(sweep.grid.name, options.out, options.tracking_uri))
        )
    return next_commands


def after_status(
    sweep: "Sweep", grid_path: Path | None, out: Path, plugins: Sequence[Path], *, driven: bool
) -> list[NextCommand]:
    """Return what comes after `harness status`; nothing that a living driver does anyway."""
    command = former_command(sweep, grid_path, out) or _grid_command("run", grid_path, plugins, out, None)
    next_commands = []
    driven = driven or grid_path is None
    if not driven and any(sweep.status(run) != "skipped" for run in sweep.to_do(retry_failed=False)):
        next_commands.append(NextCommand(command))
    next_commands += _tracebacks(sweep, grid_path, plugins, out)
    if not driven and n_bad(sweep):
        next_commands.append(NextCommand(retry(command)))
    if sweep.counts()["finished"] or n_bad(sweep):
        words = shlex.split(command)
        uri = words[words.index("--tracking-uri") + 1] if "--tracking-uri" in words[:-1] else None
        next_commands.append(NextCommand(last_command.report_command(sweep.grid.name, out, uri)))
    return next_commands


def former_command(sweep: "Sweep", grid_path: Path | None, out: Path) -> str | None:
    """Return the command that the sweep was last run with, if it names grid and folder as they are named now."""
    known = last_command.read(sweep.folder)
    try:
        words = shlex.split(known.command) if known is not None else []
    except ValueError:
        return None
    usable = words[:2] == ["harness", "run"] and str(grid_path) in words and "***" not in " ".join(words)
    named = words[words.index("--out") + 1] if "--out" in words[:-1] else str(path_variable("HARNESS_OUT") or "results")
    usable = usable and Path(named).absolute() == out.absolute()  # the folder may have been moved since
    return without_words(shlex.join(words), "--json") if usable else None


def without_words(command: str, *words: str) -> str:
    """Return a command without these options."""
    return shlex.join(word for word in shlex.split(command) if word not in words)


def retry(command: str) -> str:
    return command if "--retry" in command else f"{command} --retry failed"


def n_bad(sweep: "Sweep") -> int:
    """Return how many runs failed or diverged."""
    counts = sweep.counts()
    return counts["failed"] + counts["diverged"]


def sync_command(options: "Options") -> str:
    """Return the command that brings a store that was away up to date."""
    return _grid_command("sync", options.grid_path, options.plugins, options.out, options.tracking_uri)


def _tracebacks(sweep: "Sweep", grid_path: Path | None, plugins: Sequence[Path], out: Path) -> list[NextCommand]:
    if grid_path is None or not sweep.counts()["failed"]:
        return []
    command = _grid_command("status", grid_path, plugins, out, None) + " --tracebacks"
    return [NextCommand(command, f"{command} (in MLflow: error.txt of the run)")]


def _grid_command(
    name: str, grid_path: Path | None, plugins: Sequence[Path], out: Path, tracking_uri: str | None
) -> str:
    command = ["harness", name, "--grid", str(grid_path)]
    command += [part for plugin in plugins for part in ("--plugin", str(plugin))]
    if out != Path("results"):
        command += ["--out", str(out)]
    return _with_uri(command, tracking_uri)


def _with_uri(command: list[str], tracking_uri: str | None) -> str:
    uri = ["--tracking-uri", tracking_uri] if tracking_uri is not None else []
    return without_passwords(shlex.join([*command, *uri]))
