"""The grid of a command: a file, or text from a pipe, which can be read only once."""

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

STORED_NAME = "grid.yaml"
"""The name of a grid from a pipe in the folder of its sweep."""

_SUGGESTION = re.compile(r"Did you mean '[^']*'\? (?=One of your own needs --plugin FILE)")


@dataclass(frozen=True)
class GridFile:
    """The path of a grid, and its text if it came from a pipe. `given` is what the user typed."""

    path: Path
    given: str
    text: str | None = None

    def load(self, registry: Registry, out: Path) -> Grid:
        """Read the grid. Raises GridError, which names the plug-ins of the last run of its sweep in `out`."""
        from harness.grid.load import GridError, load_grid
        from harness.storage.plan import last_plugins, plan_of_text

        try:
            return load_grid(self.path, registry, self.text)
        except GridError as error:
            folder = self.sweep_folder(out) if "--plugin FILE" in str(error) else None
            files = last_plugins(folder) if folder is not None else ()
            if folder is None or not files:
                raise
            was_run = plan_of_text(folder, self._read()) is not None  # then no name is misspelt
            messages = [_SUGGESTION.sub("", message) if was_run else message for message in error.messages]
            raise GridError([*messages, _last_run_with(files)]) from error

    def sweep_folder(self, out: Path) -> Path | None:
        """Return the folder of its sweep without building the grid, or None if the text has no name."""
        from harness.grid.yaml_nodes import SourceError
        from harness.storage.plan import sweep_folder

        try:
            return sweep_folder(out, self.path, self._read())
        except SourceError:  # building the grid reports it
            return None

    def _read(self) -> str:
        from harness.grid.yaml_nodes import read_text

        return read_text(self.path) if self.text is None else self.text

    def stored_path(self, folder: Path) -> Path:
        """Return a path that later commands can use: the file, or where the sweep stores a grid from a pipe."""
        return self.path if self.text is None else folder / STORED_NAME

    def with_path(self, words: list[str], folder: Path) -> list[str]:
        """Return the words of a command with that path in place of a pipe."""
        if self.text is None:
            return words
        path = str(self.stored_path(folder))
        new = {self.given: path, f"--grid={self.given}": f"--grid={path}"}
        return [new.get(word, word) for word in words]


def _last_run_with(files: Sequence[str]) -> str:
    options = " ".join(f"--plugin {shlex.quote(file)}" for file in files)
    missing = ", ".join(file for file in files if not Path(file).exists())
    return f"This sweep was last run with {options}." + (
        f" Not found: {missing}. Give its new path." if missing else ""
    )


def open_grid(given: str, path: Path) -> GridFile:
    """Return the grid of a path; `-` is standard input. Raises GridError if a pipe cannot be read."""
    if given == "-":
        path = Path("/dev/stdin")
    if not is_pipe(path):
        return GridFile(path, given)
    from harness.grid.load import read_grid

    return GridFile(path, given, read_grid(path))


def is_pipe(path: Path) -> bool:
    """Return whether a path is a pipe or a device, or a name such as /dev/stdin that is valid in this process only.

    Later commands and other processes cannot read a grid there.
    """
    if re.fullmatch(r"/dev/(stdin|fd/.*)|/proc/.*/fd/.*", os.path.abspath(path)):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()
