"""The numbers that tell whether two processes have the same data, and what a sweep does where they differ."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from harness.cli import cli
from harness.grid.load import load_grid
from harness.plugins.registry import load_registry
from harness.tasks.splits import NoData, Splits
from harness.training.fingerprint import fingerprint, is_same

TASK = """
from pathlib import Path

import numpy as np
import torch

from harness.tasks import OneLayerTask, Splits


class Drawn(OneLayerTask):
    name = "drawn"

    def __init__(self, *, n: int = 200):
        super().__init__()
        self.n_latents, self.n_categories, self.n = 1, 3, n
        self.gate = torch.nn.Linear(4, 3)

    def data(self, config):
        x = torch.as_tensor({numbers}, dtype=torch.float32)
        return Splits(train=x[:100], validation=x[100:150], test=x[150:])

    def logits(self, batch):
        return self.gate(batch).unsqueeze(1)

    def cost(self, batch):
        return lambda z: (z.squeeze(2) * batch[:, :3]).sum(-1)
"""
GRID = "name: g\ntask: drawn\nestimators: [rloo]\nseeds: [0]\ntraining: {epochs: 1}\n"


def test_order_values_and_shape_tell_data_apart_and_rounding_does_not() -> None:
    torch.manual_seed(0)
    x_ND, label_N = torch.randn(300, 4), torch.arange(300) % 3
    data = Splits(train=(x_ND, label_N), test=(x_ND[:9], label_N[:9]))
    known = fingerprint(data)
    assert is_same(known, fingerprint(Splits(train=(x_ND * (1 + 1e-6), label_N), test=data.test)))
    for other in (
        (x_ND.flip(0), label_N),
        (x_ND, label_N.roll(1)),
        (x_ND + 0.1, label_N),
        (torch.randn(300, 4), label_N),
    ):
        assert not is_same(known, fingerprint(Splits(train=other, test=data.test)))
    assert not is_same(known, fingerprint(Splits(train=data.train, validation=data.test, test=data.test)))
    assert fingerprint(NoData(3)) == ()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Splits(train=torch.randn(1000, 3), test=torch.randn(5, 3))
    whole = fingerprint(data)
    monkeypatch.setattr("harness.training.fingerprint.CHUNK", 7)
    assert fingerprint(data) == pytest.approx(whole)


def test_masks_of_infinity_are_data(tmp_path: Path) -> None:
    data = Splits(train=torch.tensor([[0.0, -torch.inf]]), test=torch.tensor([[torch.nan, 1.0]]))
    assert is_same(fingerprint(data), fingerprint(data))


def test_data_without_a_seed_are_refused_before_the_first_run(tmp_path: Path) -> None:
    plugin, grid = tmp_path / "drawn.py", tmp_path / "g.yaml"
    plugin.write_text(TASK.replace("{numbers}", "np.random.default_rng().normal(size=(self.n, 4))"))
    grid.write_text(GRID)
    options = ["--plugin", str(plugin), "--no-check", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, ["run", "--grid", str(grid), *options])
    assert "drawn: expected data() to return the same numbers in every process" in str(done.exception) + done.output
    assert done.exit_code != 0


def test_an_edited_data_file_makes_new_runs(tmp_path: Path) -> None:
    plugin, grid, data = tmp_path / "drawn.py", tmp_path / "g.yaml", tmp_path / "x.pt"
    plugin.write_text(TASK.replace("{numbers}", f"torch.load({str(data)!r}, weights_only=True)"))
    grid.write_text(GRID)
    keys = []
    for seed in (0, 0, 1):
        torch.save(torch.randn(200, 4, generator=torch.Generator().manual_seed(seed)), data)
        keys.append(load_grid(grid, load_registry([plugin])).runs[0].key)
    assert keys[0] == keys[1] != keys[2]
