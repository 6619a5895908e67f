"""The page on a model of one's own: its code runs, and its tasks conform."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from torch import Tensor

from estimators import build
from harness.grid.load import load_grid
from harness.plugins import user_modules
from harness.plugins.registry import load_registry
from harness.plugins.task_check import check_whole_task
from harness.train import train

PAGE = (ROOT / "docs" / "your-own-model.md").read_text()
MODEL, TASK, BLACK_BOX, TWO_LAYERS, WITH_DATA = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(GRID,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(user_modules._FINDER, "folders", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "my_grid.yaml").write_text(GRID)
    for name, text in (("my_task", TASK), ("sum_of_digits", BLACK_BOX), ("two_gates", TWO_LAYERS)):
        (tmp_path / f"{name}.py").write_text(text)
    yield tmp_path
    sys.modules.pop("my_model", None)


@pytest.mark.parametrize("name", ["my_task", "sum_of_digits", "two_gates"])
def test_the_tasks_of_the_page_conform(folder: Path, name: str) -> None:
    (cls,) = load_registry([folder / f"{name}.py"]).of_files
    results = list(check_whole_task(cls))
    assert cls.name == name
    assert [result.text for result in results if result.failed or result.check == "warning"] == []
    if name == "my_task":
        shown = [f"{name}: {result.check}: {result.text}" for result in results]
        (listed,) = re.findall(r"```text\n(my_task: check_data.*?)…", PAGE, re.DOTALL)
        assert listed.splitlines() == shown[:3]
        assert f"{len(results)} checks passed, 0 failed." in PAGE


def test_the_grid_of_the_page_runs(folder: Path) -> None:
    registry = load_registry([folder / "my_task.py"])
    grid = load_grid(folder / "my_grid.yaml", registry)
    assert len(grid.runs) == 2 * 4 * 5
    run = grid.runs[0].model_copy(update={"training": grid.runs[0].training.model_copy(update={"epochs": 1})})
    assert list(train(run, registry))[-1].kind == "finished"


def test_the_line_of_the_page_is_that_of_the_cost(folder: Path) -> None:
    (line,) = re.findall(r"my_task\.py:(\d+): my_task: expected the cost", PAGE)
    assert TASK.splitlines()[int(line) - 1].startswith("    def cost(")


@pytest.mark.parametrize("name", ["rloo", "straight_through", "rebar"])
def test_a_cost_of_both_codes_and_the_data_reaches_every_parameter(name: str) -> None:
    names: dict[str, Any] = {}
    exec(TWO_LAYERS + WITH_DATA, names)  # noqa: S102

    class Both(names["TwoGates"]):  # type: ignore[misc]
        name = "both"
        loss = names["loss"]

        def first_logits(self, batch: Tensor) -> Tensor:
            return self.first.expand(len(batch), -1, -1)

        def error(self, batch: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
            return self.price(z1) * self.price(z2) + batch

    torch.manual_seed(0)
    task, batch = Both(), torch.arange(5)
    loss = task.loss(batch, {layer: build(name) for layer in task.layers()})
    assert loss.terms["cost"].shape == (5,)
    loss.terms["cost"].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.parameters())
