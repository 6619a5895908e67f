"""The lam of imle has no default: one line where it is missing, and grids that give it keep their keys and labels."""

import json

import pytest
import torch
from command_line import harness

from estimators import REGISTRY, Estimator, build, expect, with_unimix
from estimators.conformance.__main__ import main as conformance
from estimators.declarations import example
from estimators.imle import IMLE, NO_LAM
from harness.diagnose import by_label, diagnose
from harness.grid.load import load_grid

HEAD = "name: k\nseeds: [0]\ndata: {name: mnist-mini}\ntraining: {epochs: 1}\n"
REASON = NO_LAM.removeprefix("imle: ")


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "grid.yaml").write_text(HEAD + text)
        return load_grid(tmp_path / "grid.yaml", REGISTRY).runs

    return load


@pytest.mark.parametrize("ask", [
    lambda x: IMLE(),
    lambda x: IMLE(n_samples=4),
    lambda x: IMLE(lam=None),
    lambda x: build("imle"),
    lambda x: build("imle", unimix=0.1),
    lambda x: with_unimix(build("imle"), 0.1),
    lambda x: expect(x, lambda z: z[..., 0, 0], "imle"),
    lambda x: diagnose(x, lambda z: z[..., 0, 0], estimators=["imle"]),
])  # fmt: skip
def test_from_python_it_is_one_line(ask):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  # the message is compared below, whole
        ask(torch.zeros(2, 2, 3, requires_grad=True))
    assert str(refusal.value) == NO_LAM
    assert "\n" not in NO_LAM
    assert "aimle" in NO_LAM


def test_from_a_grid_it_is_one_line_at_the_estimator(refuse):
    head = "seeds: [0]\n"
    assert refuse(head + "estimators: [rloo, imle]") == [f"2:20: estimators[1]: {REASON}"]
    assert refuse(head + "estimators: [{name: imle, n_samples: 2}]") == [f"2:14: estimators[0]: {REASON}"]
    assert refuse(head + "estimators: [{name: imle, lam: null}]") == [f"2:32: estimators[0].lam: {REASON}"]
    basket = "estimators: [rloo]\ndiagnostics: {basket: [imle]}"
    assert refuse(head + basket) == [f"3:24: diagnostics.basket[0]: {REASON}"]


KEYS = {
    "imle(lam=0.3)": "b42e3c24fac9bc1d",
    "imle": "5da22eb585966509",
    "imle(lam=2, n_samples=2, unimix=0.1)": "c65995d559dfc270",
}
"""Labels and keys as they were while 1.0 was the default of lam."""


def test_grids_that_give_lam_keep_labels_keys_and_parameters(load):
    runs = load("estimators: [{name: imle, lam: [0.3, 1.0]}, {name: imle, lam: 2, n_samples: 2, unimix: 0.1}]")
    assert {run.label: run.key for run in runs} == KEYS
    assert dict(runs[1].estimator.params) == {"lam": 1.0, "n_samples": 1}


def test_so_do_those_with_imle_in_the_basket(load):
    """The keys depend on the labels of a basket, and so do the names of its metrics."""
    basket = "estimators: [rloo]\ndiagnostics: {every: 1 epochs, basket: [{name: imle, lam: [1.0, 0.3]}]}"
    (run,) = load(basket)
    assert run.key == "a84739d3b272b9e1"
    assert run.diagnostics.metric_names == ("imle", "imle-lam-0.3")


def test_the_command_line_says_that_it_must_be_given():
    (row,) = [row for row in json.loads(harness("list", "estimators", "--json").stdout) if row["name"] == "imle"]
    assert row["parameters"] == {"lam": "required", "n_samples": 1}
    assert "lam=required, n_samples=1" in harness("list", "estimators", "imle").stdout
    assert "{name: imle, lam: 0.1}" in harness("list", "estimators", "imle").stdout


def test_examples_build_what_its_constructor_refuses():
    assert example(IMLE, n_samples=2).extra_repr() == "lam=0.1, n_samples=2"
    assert example(IMLE, lam=3).lam == 3.0
    assert [name for name, cls in REGISTRY.items() if cls.examples] == ["imle"]
    assert list(by_label([example(IMLE)])) == ["imle(lam=0.1)"]


def test_examples_of_what_has_a_default_are_refused():
    with pytest.raises(TypeError, match=r"^mine: expected examples for arguments whose default is None, got one for"):

        class Mine(Estimator):
            name, relaxes, examples = "mine", False, {"t": 1.0}

            def __init__(self, *, t: float = 2.0) -> None:
                super().__init__()

            def forward(self, logits_BLK, cost):
                raise NotImplementedError


OWN = '''
from estimators import Pathwise, replace_gradient
from estimators.gumbel import one_hot, sample_classes


class Own(Pathwise):
    """One of the user's own."""

    name, relaxes, examples = "own", False, {"sharpness": 2.0}

    def __init__(self, *, sharpness: float | None = None) -> None:
        super().__init__()
        if sharpness is None:
            raise ValueError("own: expected sharpness > 0, got none.")
        self.sharpness = sharpness

    def sample(self, logits_BLK):
        hard_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        return replace_gradient(hard_SBLK, (self.sharpness * logits_BLK).softmax(-1).unsqueeze(0))
'''


def test_a_plugin_with_examples_is_checked_with_them(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    assert conformance([str(tmp_path / "own.py")]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert harness("check", tmp_path / "own.py").returncode == 0
    assert "sharpness=required" in harness("list", "estimators", "own", "--plugin", tmp_path / "own.py").stdout
