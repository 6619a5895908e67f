"""A grid as the command line names it: a file, or what comes through a pipe, which can be read once only."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.grid.load import Grid
    from harness.plugins.registry import Registry

KEPT_AS = "grid.yaml"
"""What a grid that came through a pipe is called in the folder of its sweep."""


_GUESS = re.compile(r"Did you mean '[^']*'\? (?=One of your own needs --plugin FILE)")


@dataclass(frozen=True)
class GridFile:
    """Where a grid is, and its text if that was read from a pipe. `given` is what the user wrote."""

    path: Path
    given: str
    text: str | None = None

    def load(self, registry: Registry, out: Path) -> Grid:
        """Read the grid. Raises GridError, which names the plug-ins that its sweep in `out` was last run with."""
        from harness.grid.load import GridError, load_grid
        from harness.storage.plan import last_plugins, plan_of_text

        try:
            return load_grid(self.path, registry, self.text)
        except GridError as error:
            folder = self.sweep_folder(out) if "--plugin FILE" in str(error) else None
            files = last_plugins(folder) if folder is not None else ()
            if folder is None or not files:
                raise
            was_run = plan_of_text(folder, self._read()) is not None  # so every name was right
            messages = [_GUESS.sub("", message) if was_run else message for message in error.messages]
            raise GridError([*messages, _last_run_with(files)]) from error

    def sweep_folder(self, out: Path) -> Path | None:
        """Return the folder of its sweep, without building the grid; None where the text does not say its name."""
        from harness.grid.yaml_nodes import SourceError
        from harness.storage.plan import sweep_folder

        try:
            return sweep_folder(out, self.path, self._read())
        except SourceError:  # building the grid says what is wrong with it
            return None

    def _read(self) -> str:
        from harness.grid.yaml_nodes import read_text

        return read_text(self.path) if self.text is None else self.text

    def lasting(self, folder: Path) -> Path:
        """Return a path that later commands can name: the file, or where a sweep keeps what came through a pipe."""
        return self.path if self.text is None else folder / KEPT_AS

    def named(self, words: list[str], folder: Path) -> list[str]:
        """Return a command's words with that path in the place of a pipe."""
        if self.text is None:
            return words
        kept = str(self.lasting(folder))
        new = {self.given: kept, f"--grid={self.given}": f"--grid={kept}"}
        return [new.get(word, word) for word in words]


def _last_run_with(files: Sequence[str]) -> str:
    options = " ".join(f"--plugin {shlex.quote(file)}" for file in files)
    gone = ", ".join(file for file in files if not Path(file).exists())
    return f"This sweep was last run with {options}." + (
        f" No longer there: {gone}. Name the file where it is now." if gone else ""
    )


def open_grid(given: str, path: Path) -> GridFile:
    """Return the grid of a path; `-` is standard input. Raises GridError where a pipe cannot be read."""
    if given == "-":
        path = Path("/dev/stdin")
    if not is_pipe(path):
        return GridFile(path, given)
    from harness.grid.load import read_grid

    return GridFile(path, given, read_grid(path))


def is_pipe(path: Path) -> bool:
    """Return whether a path is no file that later commands and other processes find there: a pipe or a device.

    Names of a process's open files, such as /dev/stdin, may lead to a file, but for that process alone.
    """
    if re.fullmatch(r"/dev/(stdin|fd/.*)|/proc/.*/fd/.*", os.path.abspath(path)):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()
