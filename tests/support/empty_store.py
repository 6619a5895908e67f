"""An empty MLflow store in a folder. MLflow's 68 migrations take a second; a copy takes none."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory


@cache
def _content() -> bytes:
    from harness.tracking import Tracker

    with TemporaryDirectory() as folder:
        Tracker(f"sqlite:///{folder}/mlflow.db", out=Path(folder))
        return Path(folder, "mlflow.db").read_bytes()


def add_empty_store(folder: Path) -> None:
    """Put an empty store into the folder, unless it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mlflow.db"
    if not path.exists():
        path.write_bytes(_content())
