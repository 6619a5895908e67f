"""What a sweep was last run with: the command, and the code, machine and workers its numbers come from.

It is kept beside the journal, so that a store that was away gets it from `harness sync`, which runs nothing itself.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.provenance import provenance
from harness.storage import checksummed_file
from reports.contract.text import without_passwords

if TYPE_CHECKING:
    from harness.options import Options
    from harness.storage.sweep_state import Sweep


class Origin(NamedTuple):
    """A command, the provenance of what it computes, and the command that makes the report."""

    command: str
    provenance: Mapping[str, Any]
    report: str = ""


def of(sweep: "Sweep", options: "Options") -> Origin:
    """Return the origin of the numbers of a sweep that starts: the former one, where there is nothing to compute."""
    if not sweep.to_do(retry_failed=options.retry_failed) and (former := read(sweep.folder)) is not None:
        return former
    made_by = {**provenance(), "workers": options.workers, "threads": options.threads}
    if options.conformance is not None:
        made_by["conformance"] = options.conformance
    return Origin(options.command, made_by, report_command(sweep.grid.name, options.out, options.tracking_uri))


def report_command(name: str, out: Path, tracking_uri: str | None) -> str:
    """Return the command that makes the report of a sweep."""
    command = ["harness", "report", "--experiment", name]
    if out != Path("results"):
        command += ["--from", str(out)]
    uri = ["--tracking-uri", tracking_uri] if tracking_uri is not None else []
    return without_passwords(shlex.join([*command, *uri]))


def keep(sweep: "Sweep", options: "Options") -> None:
    """Store it beside the journal. Raises OSError."""
    checksummed_file.write(_path(sweep.folder), json.dumps(of(sweep, options)._asdict(), indent=1).encode())


def read(folder: Path) -> Origin | None:
    """Return what was stored; None where nothing was, or where it is damaged: a store can do without."""
    try:
        return Origin(**json.loads(checksummed_file.read(_path(folder))))
    except (OSError, checksummed_file.DamagedError, ValueError, TypeError):
        return None


def _path(folder: Path) -> Path:
    return folder / "origin.json"
