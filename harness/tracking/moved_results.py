"""A results folder that was moved or copied: the paths in its database are corrected before anything is written.

Reports find the files without this (`reports.contract.artifact_paths`). But MLflow itself would look for them at
their old paths, and write there. A server keeps its own files, so this is for databases only.

A driver asks MLflow for the path of each run, and may see the folder under another name, as in a container. So the
paths of a sweep are changed by its own driver, or while it has none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from harness.storage.lease import holder
from harness.tracking.databases import with_timeout
from reports.contract.artifact_paths import ARTIFACTS_FOLDER, local_path
from reports.contract.sqlite_uri import sqlite_path

_COLUMNS = {"runs": ("run_uuid", "artifact_uri"), "logged_models": ("model_id", "artifact_location")}


def follow_moved_files(uri: str, out: Path | None = None, *, own: str | None = None) -> int:
    """Point the database at the files below its own folder, or below `out`. Return how many paths were changed.

    `own` is the experiment of the sweep whose lease the caller holds: then only that one is corrected. Without it,
    all that have no driver are.

    An experiment has moved if files of its runs lie there; or if its old path is gone, and the database lies in `out`,
    so that its files should too. Then those of its runs and models have moved that lie there or are gone from their
    old path. Raises SQLAlchemyError.
    """
    database = sqlite_path(uri)
    home = database.parent if database is not None else None
    folders = [folder for folder in (out and out.absolute(), home) if folder is not None]
    engine = create_engine(with_timeout(uri))
    try:
        with engine.connect() as connection:
            query = text("SELECT experiment_id, name, artifact_location FROM experiments")
            rows = [row for row in connection.execute(query).all() if own is None or row.name == own]
            free = [row for row in rows if own is not None or not _is_driven(row.name, folders)]
            return sum(_follow(connection, row, folders, home) for row in free)
    finally:
        engine.dispose()


def _is_driven(name: str, folders: Sequence[Path]) -> bool:
    return any(holder(folder / name) is not None for folder in folders)


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one folder, also through a link or a second mount."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _follow(connection: Any, experiment: Any, folders: Sequence[Path], home: Path | None) -> int:
    """Point one experiment, its runs and its models at their files. Return how many of them were changed."""
    number, name, location = experiment
    before = _local(location)
    targets = [folder / ARTIFACTS_FOLDER / name for folder in folders]
    if before is None or before in targets or before.parts[-2:] != (ARTIFACTS_FOLDER, name):
        return 0
    if any(_is_same(before, target) for target in targets):
        return 0
    rows = {table: _rows(connection, table, number) for table in _COLUMNS}
    target = next((each for each in targets if any((each / row[0]).is_dir() for row in rows["runs"])), None)
    if target is None and folders[:1] == [home] and not before.exists():
        target = targets[0]
    if target is None:
        return 0
    changed = [("experiments", "artifact_location", "experiment_id", number, target)]
    for table, (key, column) in _COLUMNS.items():
        for row_id, location in rows[table]:
            path = _local(location)
            if path is None or not path.is_relative_to(before):
                continue
            now = target / path.relative_to(before)
            if now.exists() or not path.exists():
                changed.append((table, column, key, row_id, now))
    for table, column, key, row_id, path in changed:
        statement = text(f"UPDATE {table} SET {column} = :location WHERE {key} = :id")  # noqa: S608 names of this file
        connection.execute(statement, {"location": path.as_uri(), "id": row_id})
    connection.commit()
    return len(changed)


def _rows(connection: Any, table: str, experiment_id: int) -> list[Any]:
    key, column = _COLUMNS[table]
    query = text(f"SELECT {key}, {column} FROM {table} WHERE experiment_id = :id")  # noqa: S608 names of this file
    return list(connection.execute(query, {"id": experiment_id}).all())


def _local(location: str | None) -> Path | None:
    try:
        return local_path(location or "")
    except ValueError:
        return None
