"""Each fast estimator equals the slow version of its published formula, and obeys the laws that the formula implies."""

import math
from itertools import product

import pytest
import torch
from estimator_cases import CASES, IDS, make
from families import NAIVE
from naive_formulas import jacobian, onehot, same_noise, softmax, value_and_slope
from scipy import stats
from torch.nn import functional as F

from estimators import REGISTRY, build, parameters
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    bias_scores,
    cost_for,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    logits_for,
    run,
    z_scores,
)

BUILT_IN = [(case, case_id) for case, case_id in zip(CASES, IDS, strict=True) if case[0] in REGISTRY]
GUMBEL = ["gumbel_softmax", "st_gumbel_softmax", "gumbel_sparsemax", "gumbel_entmax", "heavy_tail_softmax"]
NOT_SAMPLED = ("argmax_ste", "exact", "sparse_marginal")
ONE_HOT = [name for name, cls in REGISTRY.items() if not cls.relaxes and name not in NOT_SAMPLED]
P_VALUE = 1e-6
"""A chi-squared test with a fixed seed fails below this: one false alarm in a million."""


def test_every_estimator_has_a_naive_version():
    assert set(NAIVE) == set(REGISTRY)


@pytest.mark.parametrize(("name", "params"), [case for case, _ in BUILT_IN], ids=[case_id for _, case_id in BUILT_IN])
def test_equals_the_naive_version_given_the_same_noise(name, params):
    estimator = make(name, **params)
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    _, gradient_BLK = run(estimator, logits_BLK, cost)
    expected_BLK = NAIVE[name](estimator, logits_BLK, cost, seed=0)
    torch.testing.assert_close(gradient_BLK, expected_BLK, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_gumbel_softmax_equals_torch_given_the_same_noise(hard, tau, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda empty: empty.uniform_().log_().neg_())
    cost, logits_BLK = cubic_cost(example_weights()), example_logits()
    cost_B, gradient_BLK = run(build("st_gumbel_softmax" if hard else "gumbel_softmax", tau=tau), logits_BLK, cost)
    leaf_BLK = logits_BLK.clone().requires_grad_()
    torch.manual_seed(0)
    expected_B = cost(F.gumbel_softmax(leaf_BLK, tau=tau, hard=hard).unsqueeze(0))[0]
    torch.testing.assert_close(cost_B, expected_B.detach())
    torch.testing.assert_close(gradient_BLK, torch.autograd.grad(expected_B.sum(), leaf_BLK)[0])


# Laws of the codes.


def codes(estimator, dtype=torch.float64):
    """N_REPLICAS codes z_NLK of one logit row."""
    kept = []
    logits_BLK = logits_for(estimator)[:1].to(dtype).expand(N_REPLICAS, -1, -1)
    run(estimator, logits_BLK, lambda z: (kept.append(z[0].detach()), cost_for(estimator)(z))[1], seed=3)
    return kept[0]


def assert_law_is_softmax(class_NL, logits_LK):
    """Chi-squared test of the joint law of all latents against the product of their softmaxes."""
    n_latents, n_categories = logits_LK.shape
    probs_LK = logits_LK.softmax(-1)
    place_L = n_categories ** torch.arange(n_latents - 1, -1, -1)
    observed = torch.bincount((class_NL * place_L).sum(-1), minlength=n_categories**n_latents)
    law = [
        math.prod(probs_LK[latent, k].item() for latent, k in enumerate(code))
        for code in product(range(n_categories), repeat=n_latents)
    ]
    assert stats.chisquare(observed.numpy(), [len(class_NL) * p for p in law]).pvalue > P_VALUE


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ONE_HOT)
def test_one_hot_codes_are_samples_of_the_softmax(name, dtype):
    assert_law_is_softmax(codes(make(name), dtype).argmax(-1), logits_for(make(name))[0].to(dtype).double())


@pytest.mark.parametrize("tau", [2.0, 0.1, 1e-3])
@pytest.mark.parametrize("name", GUMBEL)
def test_argmax_of_a_gumbel_relaxation_is_a_sample_of_the_softmax_at_every_tau(name, tau):
    assert_law_is_softmax(codes(make(name, tau=tau)).argmax(-1), example_logits()[0])


@pytest.mark.parametrize("name", [*GUMBEL, "softmax"])
def test_soft_codes_approach_one_hot_as_tau_falls(name):
    largest = [codes(make(name, tau=tau)).amax(-1).mean() for tau in (1.0, 0.1, 0.01, 1e-4)]
    assert largest == sorted(largest)
    assert largest[-1] > 0.999


def test_st_gumbel_softmax_has_the_law_of_torch():
    ours = codes(build("st_gumbel_softmax"))
    torch.manual_seed(11)
    theirs = F.gumbel_softmax(example_logits()[:1].expand(N_REPLICAS, -1, -1), hard=True)
    for latent in range(2):
        table = torch.stack([ours[:, latent].sum(0), theirs[:, latent].sum(0)]).round()
        assert stats.chi2_contingency(table.numpy()).pvalue > P_VALUE


def test_noise_has_the_moments_of_a_gumbel_variable():
    noise = same_noise(1, torch.zeros(N_REPLICAS, 2, 3, dtype=torch.float64)).flatten()
    assert abs(z_scores(noise, torch.tensor(0.5772156649015329))) < MAX_Z
    assert abs(noise.var() / (math.pi**2 / 6) - 1) < 0.02
    assert stats.kstest(noise.numpy(), "gumbel_r").pvalue > P_VALUE


def test_one_hot_codes_are_exact_under_ties():
    """Equal logits without noise: one class is chosen, not all of them."""
    kept = []
    run(build("argmax_ste"), torch.zeros(1, 2, 5), lambda z: (kept.append(z.detach()), z.sum((-1, -2)))[1])
    assert kept[0].sum(-1).tolist() == [[[1.0, 1.0]]]


# Means of biased estimators: the enumerated formula of their own definition.


def enumerated_mean(formula, logits_LK, cost):
    """Σ_D π_D · formula(∇f(D)) over all codes D."""
    probs_LK, mean_LK = [softmax(x_K) for x_K in logits_LK], torch.zeros_like(logits_LK)
    for code in product(range(logits_LK.shape[1]), repeat=len(logits_LK)):
        z_LK = torch.stack([onehot(k, logits_LK.shape[1]) for k in code])
        prob = math.prod(probs_LK[latent][k].item() for latent, k in enumerate(code))
        mean_LK += prob * formula(value_and_slope(cost, z_LK)[1])
    return mean_LK


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_mean_of_straight_through_is_its_enumerated_formula(tau):
    cost, logits_LK = cubic_cost(example_weights()), example_logits()[0]
    _, gradient_NLK = run(build("straight_through", tau=tau), logits_LK.expand(N_REPLICAS, -1, -1), cost)
    jacobians = [jacobian(softmax(x_K / tau)) / tau for x_K in logits_LK]
    expected_LK = enumerated_mean(
        lambda g_LK: torch.stack([j @ g for j, g in zip(jacobians, g_LK, strict=True)]), logits_LK, cost
    )
    assert z_scores(gradient_NLK, expected_LK).abs().max() < MAX_Z


def test_mean_of_identity_ste_is_its_enumerated_formula():
    cost, logits_LK = cubic_cost(example_weights()), example_logits()[0]
    _, gradient_NLK = run(build("identity_ste"), logits_LK.expand(N_REPLICAS, -1, -1), cost)
    assert z_scores(gradient_NLK, enumerated_mean(lambda g_LK: g_LK, logits_LK, cost)).abs().max() < MAX_Z


def test_gumbel_softmax_mean_is_the_derivative_of_its_own_expected_cost():
    """The relaxation is unbiased for E[f(S)]: with the same noise, the slope of the mean cost is the mean gradient."""
    estimator, cost, step = build("gumbel_softmax", tau=0.7), cubic_cost(example_weights()), 1e-5
    logits_NLK = example_logits()[0].expand(N_REPLICAS, -1, -1)
    _, gradient_NLK = run(estimator, logits_NLK, cost)
    nudge_LK = torch.zeros(2, 3, dtype=torch.float64)
    nudge_LK[0, 1] = step
    slope = (run(estimator, logits_NLK + nudge_LK, cost)[0] - run(estimator, logits_NLK - nudge_LK, cost)[0]).mean() / (
        2 * step
    )
    torch.testing.assert_close(gradient_NLK[:, 0, 1].mean(), slope, rtol=1e-6, atol=1e-8)


# Special costs at which the bias is known.


def linear_cost(z_SBLK):
    return (z_SBLK * example_weights().to(z_SBLK.dtype)).sum((-1, -2))


@pytest.mark.parametrize("name", ["straight_through", "softmax"])
def test_unbiased_where_the_cost_is_linear_and_tau_is_one(name):
    assert bias_scores(make(name), linear_cost)[1].abs().max() < MAX_Z
    assert bias_scores(make(name, tau=0.5), linear_cost)[1].abs().max() > MAX_Z


def test_exact_equals_autograd_through_the_enumerated_expectation():
    cost, logits_BLK = cubic_cost(example_weights(3, 4)), example_logits(5, 3, 4)
    cost_B, gradient_BLK = run(build("exact"), logits_BLK, cost)
    for value, gradient_LK, logits_LK in zip(cost_B, gradient_BLK, logits_BLK, strict=True):
        expected, expected_LK = exact_gradient(logits_LK, cost)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient_LK, expected_LK)


# Variance.


def total_variance(estimator, cost):
    _, gradient_NLK = run(estimator, logits_for(estimator)[0].expand(N_REPLICAS, -1, -1), cost)
    return gradient_NLK.var(0).sum().item()


def test_rloo_varies_less_than_reinforce_at_equal_cost():
    """The gain grows with the distance of the mean cost from 0, which is large for a reconstruction cost."""
    for offset, most in ((0.0, 1.0), (5.0, 0.1)):
        variance = [
            total_variance(build(name, n_samples=4), lambda z, c=offset: cubic_cost(example_weights())(z) + c)
            for name in ("rloo", "reinforce")
        ]
        assert variance[0] < most * variance[1]


def test_rloo_is_indifferent_to_a_constant_and_reinforce_is_not():
    cost = cubic_cost(example_weights())
    for name, same in (("rloo", True), ("reinforce", False)):
        plain, shifted = (run(build(name), example_logits(), lambda z, c=c: cost(z) + c)[1] for c in (0.0, 100.0))
        assert torch.allclose(plain, shifted, atol=1e-9) is same


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "unordered_set"))  # 11 s
        for name, cls in REGISTRY.items()
        if "n_samples" in parameters(cls)
    ],
)
def test_variance_falls_as_one_over_n_samples(name):
    """Exactly 1/n for independent terms; a baseline made of the other samples improves as well: it falls faster."""
    cost, base = cost_for(make(name)), REGISTRY[name].min_samples
    ratio = total_variance(make(name, n_samples=4 * base), cost) / total_variance(make(name, n_samples=base), cost)
    assert ratio < 0.25 * 1.15
    assert base > 1 or ratio > 0.25 / 1.15
