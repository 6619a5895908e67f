"""`diagnose` at given logits, for given costs: against enumeration, known biases, and what it must refuse."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from estimators import REGISTRY, Pathwise, build
from estimators.declarations import example
from estimators.reference_problem import all_codes, cubic_cost, exact_gradient, example_logits, example_weights, run
from estimators.score_function import RLOO
from harness.diagnose import diagnose, label_of, plot, summary
from harness.gradients.comparison import COLUMNS, measure
from harness.gradients.gradient_problem import GradientProblem
from harness.gradients.quality import METRICS
from harness.gradients.toy_problems import TOYS
from harness.gradients.truth import true_gradient

WEIGHTS = example_weights()
LOGITS, COST = example_logits(), cubic_cost(WEIGHTS)


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    frame = diagnose(LOGITS, COST, resamples=512)
    assert frame.attrs["truth"] == "exact, by enumeration of 3^2 = 9 codes"
    return frame.set_index("estimator")


def test_all_estimators_are_measured_or_say_why_not(everything):
    assert list(everything.index) == [label_of(example(cls)) for cls in REGISTRY.values()]
    assert "imle(lam=0.1)" in everything.index  # a value that must be given
    assert tuple(everything.columns) == COLUMNS
    for name, row in everything.iterrows():
        numbers = row[list(METRICS)].drop("snr").astype(float)
        assert (numbers.notna().all() and row["evaluations"] > 0 and row["seconds"] > 0) == (row["reason"] == ""), name


def test_unbiased_and_biased_estimators_are_told_apart(everything):
    measured = everything[everything["reason"] == ""]
    for name, row in measured.iterrows():
        if REGISTRY[name.partition("(")[0]].unbiased:
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

    given = GradientProblem(LOGITS, COST, 3, code_costs=code_costs)
    own = GradientProblem(LOGITS, COST, 3)
    found = [true_gradient(p, lambda logits: logits, 9) for p in (given, own)]
    torch.testing.assert_close(*found)
    assert asked == [9]


def test_estimators_with_their_own_distribution_are_compared_with_its_gradient():
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


def test_inapplicable_quantities_have_a_reason():
    reasons = diagnose(LOGITS, lambda z: COST(z.detach()), ["straight_through", "rloo", build("exact", max_codes=8)])
    assert list(reasons["reason"]) == [
        "it needs the derivative of the cost, and this cost has none",
        "",
        "expected n_categories^n_latents <= max_codes = 8, got 3^2 = 9. Use fewer latents or classes, or raise "
        "max_codes.",
    ]
    assert list(reasons["estimator"]) == ["straight_through", "rloo", "exact(max_codes=8)"]


def test_variables_may_have_any_shape() -> None:
    logits, weight = torch.randn(3, 4, 3), torch.randn(4, 3)
    flat = diagnose(logits, lambda z: (z * weight).sum((-1, -2)).square(), ["reinmax", "rloo"], resamples=64)
    shaped = diagnose(
        logits.reshape(3, 2, 2, 3),
        lambda z: (z.flatten(2, 3) * weight).sum((-1, -2)).square(),
        ["reinmax", "rloo"],
        resamples=64,
    )
    measured = [column for column in flat.columns if column != "seconds"]
    assert flat[measured].equals(shaped[measured])
    single = diagnose(logits[:, 0], lambda z: (z * weight[0]).sum(-1).square(), ["straight_through"], resamples=64)
    assert single["relative_bias"].notna().all()


BAD = [
    ({"logits": torch.zeros(3)}, "floating-point logits of shape (B, …, K), got torch.float32 (3,)."),
    ({"logits": torch.zeros(2, 3, 4, dtype=torch.long)}, "floating-point logits of shape (B, …, K), got torch.int64"),
    ({"logits": [[[0.0, 1.0]]]}, "floating-point logits of shape (B, …, K), got list."),
    ({"logits": torch.full((1, 2, 3), math.nan)}, "finite logits, got NaN or ∞."),
    *(({"resamples": bad}, f"a whole number resamples >= 64, got {bad!r}.") for bad in (8, 64.0, math.nan, "64")),
    *(({"max_codes": bad}, f"a whole number max_codes >= 1, got {bad!r}.") for bad in (-5, 8.5)),
    *(({"n_categories": bad}, f"a whole number n_categories >= 1, got {bad!r}.") for bad in (0, -1, "3")),
    ({"seed": -1}, "a whole number seed >= 0, got -1."),
    ({"context": torch.zeros(3, 5)}, "a context of shape (B, X), B = 4, got (3, 5)."),
    ({"estimators": []}, "at least one estimator, got none."),
    ({"estimators": "rloo"}, "a list of estimators, got 'rloo'."),
    ({"estimators": build("rloo")}, "a list of estimators, got RLOO(n_samples=4)."),
    ({"estimators": 42}, "a list of estimators, got 42."),
    ({"estimators": [42]}, "names of estimators or built ones, got 42."),
    ({"estimators": {"m": RLOO}}, "names of estimators or built ones, got <class"),
    ({"estimators": ["rloo", "rloo"]}, "each estimator once, got one again."),
    ({"estimators": ["rlo"]}, "one of 41 names, got 'rlo'. Did you mean 'rloo'?"),
    ({"cost": None}, "a cost, a function of codes (S, B, L, K), got None."),
    ({"cost": lambda z: 3.0}, "a cost that returns a floating-point tensor (S, B), got float."),
    ({"cost": lambda z: z.argmax(-1).sum(-1)}, "a cost that returns a floating-point tensor (S, B), got torch.int64."),
    ({"cost": lambda z: z.sum((-1, -2, -3))}, "cost of shape (S, B) = (1, 4), got (1,)."),
    ({"cost": lambda z: z.sum((-1, -2))[..., None]}, "cost of shape (S, B) = (1, 4), got (1, 4, 1)."),
    ({"cost": lambda z: z.sum((-1, -2)) / 0}, "a finite cost of every code, got NaN or ∞."),
    (
        {"cost": lambda z: F.dropout(z * WEIGHTS, 0.5).sum((-1, -2)) + torch.rand(())},
        "the same cost of the same code, got another.",
    ),
]


@pytest.mark.parametrize(("change", "line"), BAD, ids=[line[:50] for _, line in BAD])
@pytest.mark.parametrize("max_codes", [1, 16_384])
def test_bad_input_is_one_line(change, line, max_codes):
    with pytest.raises(ValueError, match=f"expected {re.escape(line)}") as refusal:
        diagnose(**{"logits": LOGITS, "cost": COST, "estimators": ["rloo"], "max_codes": max_codes, **change})
    assert "\n" not in str(refusal.value)


def test_a_cost_that_leaves_torch_is_a_black_box():
    def cost(z_SBLK):
        return torch.as_tensor((z_SBLK.numpy() * example_weights().numpy()).sum((-1, -2)))

    with torch.no_grad():  # nor does it matter where it is called
        frame = diagnose(LOGITS, cost, ["straight_through", "rloo"], resamples=64)
    assert list(frame["reason"]) == ["it needs the derivative of the cost, and this cost has none", ""]
    assert frame["p_value"][1] > 1e-3


# Noise that shows rarely, gradients of 0, NaN and rounding.


PEAKED = torch.tensor([[[3.0, 0.0]]], dtype=torch.float64)


def first_class(z_SBLK):
    return (z_SBLK[..., 0, 0] - 0.45) ** 2


@pytest.mark.parametrize("name", ["reinforce", "rloo", "disarm", "reinmax", "straight_through"])
def test_frequently_equal_draws_do_not_count_as_noise_free(name):
    """With P(mode) = .95 two draws are equal more often than not."""
    for seed in range(5):
        row = diagnose(PEAKED, first_class, [name], seed=seed).iloc[0]
        assert row["variance"] > 0
        assert name not in ("reinforce", "rloo", "disarm") or not row["p_value"] < 1e-3


def test_too_few_different_draws_give_no_interval_and_no_p_value():
    row = diagnose(2 * PEAKED, first_class, ["reinforce"], resamples=64).iloc[0]
    for name in ("relative_bias_low", "relative_bias_high", "p_value", "cosine_low"):
        assert math.isnan(row[name])


def test_noise_from_elsewhere_is_noise_too():
    rng = np.random.default_rng(0)

    class Own(Pathwise):
        """Noise that torch's generators know nothing of."""

        name = "own_noise"
        relaxes = True

        def sample(self, logits_BLK):
            noise_BLK = torch.as_tensor(rng.gumbel(size=logits_BLK.shape))
            return (logits_BLK + noise_BLK).softmax(-1)[None]

    assert diagnose(LOGITS, COST, [Own()], resamples=64)["variance"][0] > 0


def test_a_gradient_that_is_not_finite_has_a_reason_and_no_numbers():
    class Broken(Pathwise):
        """NaN for the second class."""

        name = "broken"
        relaxes = True

        def sample(self, logits_BLK):
            x_BLK = logits_BLK.clone()
            x_BLK.register_hook(lambda g: g.index_fill(-1, torch.tensor(1), math.nan))
            return x_BLK.softmax(-1)[None]

    frame = diagnose(LOGITS, COST, [Broken(), build("rloo")], resamples=64)
    assert list(frame["reason"]) == ["its gradient is NaN or ∞ at these logits", ""]
    assert frame.loc[0, list(METRICS)].isna().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rounding_errors_are_not_bias(dtype):
    for name in ("exact", "indecater"):
        row = diagnose(LOGITS[:, :1].to(dtype), lambda z: COST(F.pad(z, (0, 0, 0, 1))), [name], resamples=64).iloc[0]
        assert row["p_value"] == 1
        assert row["relative_bias"] == row["relative_bias_low"] == 0


def test_where_the_gradient_is_zero_nothing_is_relative_to_it():
    """A cost that is the same on all one-hot codes."""
    names = ["exact", "rloo", "straight_through"]
    frame = diagnose(LOGITS, lambda z: z.square().sum((-1, -2)), names, resamples=64)
    assert frame[["relative_bias", "cosine", "p_value", "relative_error_100"]].isna().all(axis=None)
    assert list(frame["variance"] > 1e-9) == [False, False, True]
    assert list(frame["reason"]) == [""] * 3
    assert "–: the true gradient is 0, or no longer than rounding" in summary(frame)


def test_learned_weights_are_measured_where_they_settle():
    """A linear cost: with eta = 1, double control variates have no variance at all."""
    weights = example_weights()
    frame = diagnose(LOGITS, lambda z: (z * weights).sum((-1, -2)), ["rloo", "double_cv"], resamples=256)
    assert frame["variance"][1] < 0.01 * frame["variance"][0]


def test_the_error_at_equal_cost_is_that_of_the_mean_of_affordable_draws():
    """25 draws of four evaluations each: what their mean misses the gradient by, root mean square."""
    frame = diagnose(LOGITS, COST, {"a": build("rloo", n_samples=4), "b": build("softmax")}, resamples=2048)
    rows = LOGITS.repeat(25 * 800, 1, 1)
    _, gradient = run(build("rloo", n_samples=4), rows, COST)
    truth = torch.stack([exact_gradient(logits_LK, COST)[1] for logits_LK in LOGITS])
    error = gradient.view(800, 25, *LOGITS.shape).mean(1) - truth
    expected = (error.square().flatten(1).sum(-1).mean().sqrt() / truth.norm()).item()
    assert frame["relative_error_100"][0] == pytest.approx(expected, rel=0.05)
    assert frame["relative_error_100"][1] == pytest.approx(frame["relative_bias"][1])


def test_the_summary_fits_a_terminal_and_says_what_is_not_applicable():
    frame = diagnose(LOGITS, COST, ["rloo", "disarm", "straight_through"], resamples=64)
    lines = summary(frame).splitlines()
    assert lines[0].split() == ["Rel.", "bias", "95", "%", "interval", "Cosine", "SNR", "Error", "Evals"]
    assert [line.split()[0] for line in lines[1:3]] == ["rloo", "straight_through"]
    assert lines[3:] == [
        "not applicable: disarm: expected n_categories = 2, got 3. Use disarm_sb.",
        "truth: exact, by enumeration of 3^2 = 9 codes",
    ]
    nothing = diagnose(LOGITS, COST, ["disarm"], resamples=64)
    assert summary(nothing).startswith("not applicable: disarm")


def test_a_label_has_the_parameters_that_are_not_defaults():
    assert label_of(build("rloo")) == "rloo"
    assert label_of(build("rebar", eta=0.5)) == "rebar(eta=0.5)"
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
