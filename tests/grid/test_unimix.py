"""unimix in a grid: a parameter of every estimator, part of key, label and stored parameters; names from papers."""

import pytest

from estimators import REGISTRY, Pathwise
from estimators.aliases import ALIASES
from harness.grid.load import load_grid
from harness.train import train

HEAD = "seeds: [0]\n"
SMALL = "model: {hidden: [8], n_latents: 2, n_categories: 3}\ntraining: {epochs: 1}\ndata: {train_size: 100}\n"


@pytest.fixture
def load(tmp_path):
    def load(text, registry=REGISTRY):
        (tmp_path / "grid.yaml").write_text(HEAD + text)
        return load_grid(tmp_path / "grid.yaml", registry).runs

    return load


def test_it_is_swept_like_any_parameter(load):
    runs = load("estimators: [{name: rloo, unimix: [0, 0.01, 0.1], n_samples: [2, 4]}]")
    assert [run.label for run in runs] == [
        "rloo(n_samples=2)", "rloo", "rloo(n_samples=2, unimix=0.01)", "rloo(unimix=0.01)",
        "rloo(n_samples=2, unimix=0.1)", "rloo(unimix=0.1)",
    ]  # fmt: skip
    assert len({run.key for run in runs}) == 6
    assert [run.flat().get("estimator.unimix") for run in runs] == [None, None, 0.01, 0.01, 0.1, 0.1]
    assert runs[2].build_estimator(REGISTRY).unimix == 0.01
    assert type(runs[2]).from_json(runs[2].to_json()).key == runs[2].key


def test_none_of_it_is_the_run_without_it(load):
    for none in ("0", "0.0", "-0.0"):
        (without,), (zero,) = load("estimators: [reinmax]"), load(f"estimators: [{{name: reinmax, unimix: {none}}}]")
        assert (without.key, without.label, without.to_json()) == (zero.key, zero.label, zero.to_json())
    assert dict(without.estimator.params) == {"n_samples": 1}


def test_the_same_run_twice_is_refused(refuse):
    (line,) = refuse(HEAD + "estimators: [reinmax, {name: reinmax, unimix: 0}]")
    assert "expected each run once, got 'reinmax' again" in line


def test_what_is_impossible_is_one_line_at_its_place(refuse):
    rule = "estimators[0].unimix: expected 0 <= unimix < 1, got"
    for bad, shown in (("1", "1.0"), ("-0.1", "-0.1"), ("true", "True"), ("'1'", "'1'"), ("null", "None")):
        (line,) = refuse(HEAD + f"estimators: [{{name: rloo, unimix: {bad}}}]")
        assert line == f"2:35: {rule} {shown}."
    law = "expected no unimix, since its codes do not follow softmax(logits), got 0.01."
    assert refuse(HEAD + "estimators: [{name: igr, unimix: 0.01}]") == [f"2:34: estimators[0].unimix: {law}"]
    (line,) = refuse(HEAD + "estimators: [{name: rloo, unimx: 0.1}]")
    assert line.endswith("got 'unimx'. Did you mean 'unimix'?")


class Shares(Pathwise):
    """Has a parameter of that name."""

    name, relaxes = "shares", True

    def __init__(self, *, unimix: str = "half") -> None:
        super().__init__()
        self.unimix = unimix

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


def test_a_parameter_of_that_name_stays_a_plugins_own(load):
    registry = {**REGISTRY, "shares": Shares}
    for given, params in (("[shares]", {"unimix": "half"}), ("[{name: shares, unimix: 0}]", {"unimix": 0})):
        (run,) = load(f"estimators: {given}", registry)
        assert run.estimator.params == params
        assert type(run.build_estimator(registry)) is Shares


def test_a_run_trains_and_is_measured_under_the_mixed_law(load):
    """With nearly all of the uniform law the KL is nearly 0, in training, validation and test."""
    grid = f"{SMALL}estimators: [{{name: rebar, unimix: [0, 0.999]}}]\nevaluation: {{bound_samples: 0}}\n"
    grid += "schedules: [{kind: constant, tau: 0.5}]\ndiagnostics: {resamples: 64, probe: 4, basket: [rloo]}\n"
    found = [list(train(run, REGISTRY)) for run in load(grid)]
    kl = [events[-1].metrics["test/kl"] for events in found]
    assert kl[0] > 1e-3
    assert 0 <= kl[1] < 1e-5


@pytest.mark.parametrize("name", ["LOORF", "loorf", "U2G", "Gumbel-Softmax", "gumbel softmax", "Gumbel-max trick"])
def test_a_name_from_a_paper_is_an_error_with_the_key(refuse, name):
    said = next((a.sentence(n) for a in ALIASES for n in a.names if n.lower() == name.lower()), "")
    said = said or "Did you mean 'gumbel_softmax'?"
    for where, text in (
        ("2:14: estimators[0]", f"estimators: [{name}]"),
        ("2:21: estimators[0].name", f"estimators: [{{name: {name}}}]"),
        ("3:24: diagnostics.basket[0]", f"estimators: [rloo]\ndiagnostics: {{basket: [{name}]}}"),
    ):
        (line,) = refuse(HEAD + text)
        assert line == f"{where}: expected one of {len(REGISTRY)} names, got {name!r}. {said}"
