"""The paths of a run's files after a results folder was moved, copied or mounted elsewhere.

MLflow stores absolute paths. A results folder holds its files at `artifacts/EXPERIMENT/RUN ID/artifacts`, so the end
of a stored path says where they are below the folder as it is now. Run ids are unique: what lies there is the run's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ARTIFACTS_FOLDER = "artifacts"
_TAIL = 4  # artifacts / experiment / run id / artifacts


def local_path(location: str) -> Path | None:
    """Return the path that a stored location on this machine means, or None. Raises ValueError for no URI."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if len(parts.scheme) > 1 else Path(location)


def current_path(path: Path, folders: Iterable[Path]) -> Path:
    """Return where the files of a run are now: below one of the results folders if they are there, else `path`."""
    tail = path.parts[-_TAIL:]
    if len(tail) < _TAIL or tail[0] != ARTIFACTS_FOLDER or ".." in tail:
        return path
    below = (folder.joinpath(*tail) for folder in folders)
    return next((found for found in below if found.is_dir()), path)
