"""A grid of 16 runs, and what is asserted of its stored plan."""

from collections.abc import Callable
from pathlib import Path

from harness.grid.load import Grid
from harness.storage.plan_file import Plan

GRID = """\
name: mine
training: {epochs: 10, lr: [1e-3, 3e-4]}
estimators:
  - straight_through
  - {name: rloo, n_samples: [2, 4]}
schedules: [{kind: constant, tau: [0.5, 1.0]}]
seeds: [0, 1]
"""
Load = Callable[..., Grid]


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_same_runs(found: Plan, grid: Grid) -> None:
    assert (found.name, found.text) == (grid.name, grid.text)
    assert [(run.key, run.name, run.label) for run in found.runs] == [(r.key, r.name, r.label) for r in grid.runs]
    for run, config in zip(found.runs, grid.runs, strict=True):
        expected = config.flat()
        shown = {name: run.values[name] for name in expected if name != "diagnostics.basket"}
        expected.pop("diagnostics.basket", None)
        assert shown == expected
        assert run.values.keys() - {"diagnostics.basket"} == expected.keys()
        assert list(map(type, shown.values())) == list(map(type, expected.values()))
