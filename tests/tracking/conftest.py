"""A small sweep and its store."""

from pathlib import Path

import pytest
from tracked_runs import open_sweep

from estimators import REGISTRY
from harness.grid.load import Grid, load_grid
from harness.tracking import Tracker


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    path = tmp_path / "small.yaml"
    path.write_text("name: small\nquestion: why?\nestimators: [straight_through, rloo]\nseeds: [0, 1, 2]\n")
    return load_grid(path, REGISTRY)


@pytest.fixture
def tracker(out: Path, grid: Grid) -> Tracker:
    found = Tracker(f"sqlite:///{out / 'mlflow.db'}", out=out)
    open_sweep(found, grid)
    return found
