"""The file origin.json: the command that a sweep was last run with, and the provenance of its numbers.

`harness sync` reads it to fill a store that was not reachable, because it runs nothing itself.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.provenance import provenance
from harness.storage import checksummed_file
from reports.contract.text import without_passwords

if TYPE_CHECKING:
    from harness.options import Options
    from harness.storage.sweep_state import Sweep


class LastCommand(NamedTuple):
    """A command, the provenance of what it computes, and the command that makes the report."""

    command: str
    provenance: Mapping[str, Any]
    report: str = ""


def current(sweep: "Sweep", options: "Options") -> LastCommand:
    """Return the command of a sweep that starts, or the stored one if there is nothing left to compute."""
    if not sweep.to_do(retry_failed=options.retry_failed) and (stored := read(sweep.folder)) is not None:
        return stored
    facts = {**provenance(), "workers": options.workers, "threads": options.threads}
    if options.conformance is not None:
        facts["conformance"] = options.conformance
    return LastCommand(options.command, facts, report_command(sweep.grid.name, options.out, options.tracking_uri))


def report_command(name: str, out: Path, tracking_uri: str | None) -> str:
    """Return the command that makes the report of a sweep."""
    return command_line(["report", "--experiment", name], "--from", out, tracking_uri)


def command_line(words: Sequence[str], option: str, out: Path, tracking_uri: str | None) -> str:
    """Return a command of `harness`, with results folder (as `option`) and store where they are not the default."""
    folder = [option, str(out)] if out != Path("results") else []
    uri = ["--tracking-uri", tracking_uri] if tracking_uri is not None else []
    return without_passwords(shlex.join(["harness", *words, *folder, *uri]))


def save(sweep: "Sweep", options: "Options") -> None:
    """Store the current command in the sweep's folder. Raises OSError."""
    checksummed_file.write(_path(sweep.folder), json.dumps(current(sweep, options)._asdict(), indent=1).encode())


def read(folder: Path) -> LastCommand | None:
    """Return the stored command, or None if there is none or its file is damaged. Stores can do without it."""
    try:
        return LastCommand(**json.loads(checksummed_file.read(_path(folder))))
    except (OSError, checksummed_file.DamagedError, ValueError, TypeError):
        return None


def _path(folder: Path) -> Path:
    return folder / "origin.json"
