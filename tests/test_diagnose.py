"""`diagnose` at given logits, for given costs: against enumeration, known biases, and what it must refuse."""

import pandas as pd
import pytest
import torch

from estimators import REGISTRY, Pathwise, build
from estimators.yardstick import all_codes, cubic_cost, exact_gradient, example_logits, example_weights
from harness import gradient_draws
from harness.diagnose import COLUMNS, diagnose, label_of, measure, plot
from harness.gradient_draws import Problem, Reference
from harness.gradient_quality import METRICS
from harness.toys import TOYS

LOGITS, COST = example_logits(), cubic_cost(example_weights())


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    return diagnose(LOGITS, COST, resamples=512).set_index("estimator")


def test_all_estimators_are_measured_or_say_why_not(everything):
    assert list(everything.index) == list(REGISTRY)
    assert tuple(everything.columns) == COLUMNS[1:]
    for name, row in everything.iterrows():
        numbers = row[list(METRICS)].drop("snr").astype(float)
        assert (numbers.notna().all() and row["evaluations"] > 0 and row["seconds"] > 0) == (row["reason"] == ""), name
    assert everything.attrs == {} or "9 codes" in everything.attrs["truth"]


def test_unbiased_estimators_are_found_so_and_biased_ones_not(everything):
    measured = everything[everything["reason"] == ""]
    for name, row in measured.iterrows():
        if REGISTRY[name].unbiased:
            assert row["p_value"] > 1e-3, name
            assert row["relative_bias"] < 0.25, name
    assert (measured.loc[["straight_through", "gumbel_softmax", "softmax"], "p_value"] < 0.01).all()


def test_the_bias_of_a_deterministic_estimator_is_exact(everything):
    """argmax straight-through has no noise, so its bias is that of its one gradient: computed here by hand."""
    truth = torch.stack([exact_gradient(one, COST)[1] for one in LOGITS])
    leaf = LOGITS.clone().requires_grad_()
    (mine,) = torch.autograd.grad(build("argmax_ste")(leaf, COST).cost_B.sum(), leaf)
    expected = ((mine - truth).norm() / truth.norm()).item()
    row = everything.loc["argmax_ste"]
    assert row["relative_bias"] == pytest.approx(expected, rel=1e-9)
    assert (row["relative_bias_low"], row["relative_bias_high"]) == pytest.approx((expected, expected), rel=1e-6)
    assert row["variance"] == 0
    cosine = torch.nn.functional.cosine_similarity(mine.flatten(), truth.flatten(), dim=0).item()
    assert row["cosine"] == pytest.approx(cosine, rel=1e-9)


def test_the_variance_is_that_of_one_draw_per_example():
    """Var of reinforce, Σ_z q(z) ‖f(z)(z − π)‖² − ‖∇‖² for each example, by enumeration."""
    total = 0.0
    for logits_LK in LOGITS:
        probs_LK = logits_LK.softmax(-1)
        gradient = exact_gradient(logits_LK, COST)[1]
        second = 0.0
        for z_LK in all_codes(2, 3):
            score = COST(z_LK[None, None])[0, 0] * (z_LK - probs_LK)
            second += (probs_LK * z_LK).sum(-1).prod() * score.square().sum()
        total += second - gradient.square().sum()
    found = diagnose(LOGITS, COST, ["reinforce"], resamples=32_768)["variance"][0]
    assert found == pytest.approx(float(total) / len(LOGITS), rel=0.05)


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (diagnose(LOGITS, COST, ["reinforce"], resamples=64, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    columns = list(METRICS)
    pd.testing.assert_frame_equal(first[columns], again[columns])
    assert first["variance"][0] != other["variance"][0]


def test_a_long_average_stands_in_for_enumeration_and_says_so(everything):
    frame = diagnose(LOGITS, COST, ["straight_through", "rloo"], resamples=512, max_codes=8).set_index("estimator")
    assert (
        "2048 draws of rloo(n_samples=32), as 3^2 codes are more than 8; its own standard error is 0.01"
        in (frame.attrs["truth"])
    )
    exact = everything.loc["straight_through"]
    assert frame.loc["straight_through", "relative_bias"] == pytest.approx(exact["relative_bias"], rel=0.05)
    assert frame.loc["rloo", "p_value"] > 1e-3


def test_costs_of_all_codes_may_come_from_elsewhere():
    asked = []

    def code_costs(z_NLK):
        asked.append(len(z_NLK))
        return COST(z_NLK[:, None]).expand(-1, len(LOGITS))

    given = Problem(LOGITS, COST, 3, code_costs=code_costs)
    own = Problem(LOGITS, COST, 3)
    found = [gradient_draws.truth(p, lambda logits: logits, 9, Reference()) for p in (given, own)]
    torch.testing.assert_close(*found)
    assert asked == [9]


def test_estimators_with_a_law_of_their_own_are_held_against_its_gradient():
    class Sharper(Pathwise):
        """Codes from softmax(2 θ), with the exact gradient of a linear cost."""

        name = "sharper"
        relaxes = True

        def class_logits(self, logits_BLK):
            return 2 * logits_BLK

        def sample(self, logits_BLK):
            return (2 * logits_BLK).softmax(-1)[None]

    weights = example_weights()
    frame = diagnose(LOGITS, lambda z: (z * weights).sum((-1, -2)), [Sharper()], resamples=64)
    assert frame["relative_bias"][0] < 1e-12


def test_what_is_not_applicable_says_why():
    reasons = diagnose(LOGITS, lambda z: COST(z.detach()), ["straight_through", "rloo", build("exact", max_codes=8)])
    assert list(reasons["reason"]) == [
        "it needs the derivative of the cost, and this cost has none",
        "",
        "expected n_categories^n_latents <= max_codes = 8, got 3^2 = 9. Use fewer latents or classes, or raise "
        "max_codes.",
    ]
    assert list(reasons["estimator"]) == ["straight_through", "rloo", "exact(max_codes=8)"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"logits": torch.zeros(2, 3)},
            r"diagnose: expected floating-point logits of shape \(B, L, K\), got .*\(2, 3\)",
        ),
        ({"logits": torch.zeros(2, 3, 4, dtype=torch.long)}, "floating-point logits .* got torch.int64"),
        ({"logits": torch.full((1, 2, 3), float("nan"))}, "diagnose: expected finite logits, got NaN"),
        ({"resamples": 8}, "diagnose: expected resamples >= 64, got 8."),
        ({"estimators": ["rloo", "rloo"]}, "diagnose: expected each estimator once"),
        ({"estimators": ["rlo"]}, "expected one of .* names, got 'rlo'. Did you mean 'rloo'"),
        ({"cost": lambda z: z.sum((-1, -2, -3))}, r"rloo: expected cost of shape \(S, B\)"),
        ({"cost": lambda z: z.sum((-1, -2)) / 0}, "rloo: expected a finite cost of every code, got NaN or ∞"),
    ],
)
def test_bad_input_is_one_line(change, line):
    with pytest.raises(ValueError, match=line):
        diagnose(**{"logits": LOGITS, "cost": COST, "estimators": ["rloo"], "max_codes": 1, **change})


def test_a_label_has_the_parameters_that_are_not_defaults():
    assert label_of(build("rloo")) == "rloo"
    assert label_of(build("gumbel_softmax", tau=0.5, n_samples=2)) == "gumbel_softmax(n_samples=2, tau=0.5)"


def test_the_plot_shows_every_measured_estimator(everything, tmp_path):
    path = tmp_path / "gradients.svg"
    figure = plot(everything.reset_index(), path)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == list(everything.index[everything["reason"] == ""])
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize("name", TOYS)
def test_toys_find_rloo_unbiased(name):
    toy = TOYS[name]
    rows, about = measure(toy.problem(toy.n_categories), {"rloo": build("rloo")}, 128, 1, 0)
    assert about.text == "exact, in closed form"
    assert rows["rloo"]["p_value"] > 1e-3
