"""Relaxations and sums whose one-hot codes follow another law: that law, their expectation, KL and memory."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from naive_formulas import entmax
from scipy import integrate, special, stats
from torch import nn

from estimators import build
from estimators.gaussian import argmax_law
from estimators.igr import SMALLEST_SCALE, moments, threshold
from estimators.igr import argmax_law as igr_law
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

P_VALUE = 1e-6
"""A chi-squared test with a fixed seed fails below this: one false alarm in a million."""
RELAXED = ["gaussian_softmax", "igr"]
SUMS = ["exact", "sparse_marginal"]


# Relaxations: the gradient is that of their own expected cost.


@pytest.mark.parametrize("name", RELAXED)
def test_gradient_is_the_slope_of_the_cost_with_the_noise_held_fixed(name):
    estimator = build(name, tau=0.7, n_samples=3)
    logits_BLH, cost, step = logits_for(estimator, 2), cost_for(estimator), 1e-6
    _, gradient_BLH = run(estimator, logits_BLH, cost)
    for index in np.ndindex(*logits_BLH.shape):
        nudge_BLH = torch.zeros_like(logits_BLH)
        nudge_BLH[index] = step
        high, low = (run(estimator, logits_BLH + sign * nudge_BLH, cost)[0].sum() for sign in (1, -1))
        torch.testing.assert_close(gradient_BLH[index], (high - low) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", RELAXED)
def test_temperature_may_be_learned(name):
    estimator = build(name)
    estimator.tau = torch.tensor(0.5, requires_grad=True)
    logits_BLH = logits_for(estimator)
    torch.manual_seed(0)
    estimate = estimator(logits_BLH, cost_for(estimator))
    (slope,) = torch.autograd.grad(estimate.cost_B.sum(), estimator.tau)
    high, low = (run(build(name, tau=0.5 + step), logits_BLH, cost_for(estimator))[0].sum() for step in (1e-6, -1e-6))
    torch.testing.assert_close(slope.double(), (high - low) / 2e-6, rtol=1e-5, atol=1e-5)


# Laws of the one-hot codes.


def soft_codes(estimator, logits_LH, n_replicas=N_REPLICAS, n_categories=3):
    """n_replicas soft codes z_NLK of one logit row."""
    kept = []
    cost = cubic_cost(example_weights(len(logits_LH), n_categories))
    run(estimator, logits_LH.expand(n_replicas, -1, -1), lambda z: (kept.append(z[0].detach()), cost(z))[1], seed=5)
    return kept[0]


@pytest.mark.parametrize("tau", [2.0, 0.1, 1e-3])
@pytest.mark.parametrize("name", RELAXED)
def test_argmax_of_the_codes_has_the_declared_law_at_every_tau(name, tau):
    """Jointly over the latents; with softmax(θ) in its place the same test fails."""
    estimator = build(name, tau=tau)
    logits_LH = 1.5 * logits_for(estimator)[1]
    class_NL = soft_codes(estimator, logits_LH).argmax(-1)
    observed = torch.bincount(class_NL[:, 0] * 3 + class_NL[:, 1], minlength=9).numpy()

    def p_value(probs_LK):
        return stats.chisquare(observed, N_REPLICAS * torch.outer(*probs_LK).flatten().numpy()).pvalue

    assert p_value(estimator.class_logits(logits_LH[None])[0].softmax(-1)) > P_VALUE
    if name == "gaussian_softmax":
        assert p_value(logits_LH.softmax(-1)) < P_VALUE


@pytest.mark.parametrize("name", RELAXED)
def test_cost_and_gradient_become_those_of_the_declared_law_as_tau_falls(name):
    """The bias is far beyond noise at τ = 1, and is lost in it at τ = 0.02."""
    for tau, biased in ((1.0, True), (0.02, False)):
        for scores in bias_scores(build(name, tau=tau)):
            assert bool(scores.abs().max() > MAX_Z) is biased


@pytest.mark.parametrize("name", RELAXED)
def test_codes_approach_one_hot_as_tau_falls(name):
    estimators = [build(name, tau=tau) for tau in (1.0, 0.1, 0.01, 1e-4)]
    largest = [soft_codes(each, logits_for(each)[0]).amax(-1).mean() for each in estimators]
    assert largest == sorted(largest)
    assert largest[-1] > 0.999


def test_gaussian_law_of_two_classes_is_the_normal_distribution_function():
    gap_N = torch.linspace(-12, 12, 49, dtype=torch.float64)
    law_NK = argmax_law(torch.stack([gap_N, torch.zeros_like(gap_N)], -1).unsqueeze(1))[:, 0]
    expected_N = torch.special.log_ndtr(gap_N / math.sqrt(2))
    torch.testing.assert_close(law_NK[:, 0], expected_N, rtol=0, atol=1e-8)
    torch.testing.assert_close(law_NK[:, 1], expected_N.flip(0), rtol=0, atol=1e-8)


def reference_law(mean_J, scale_J, k, low=-math.inf):
    """P(u_k is the largest, and above `low`) by adaptive quadrature, split where any factor bends."""

    def integrand(x):
        others = np.delete(special.ndtr((x - mean_J) / scale_J), k).prod()
        return stats.norm.pdf(x, mean_J[k], scale_J[k]) * others

    bends = np.concatenate([mean_J + t * scale_J for t in (-6, -3, -1, 0, 1, 3, 6, 10)])
    first = max(low, mean_J[k] - 10 * scale_J[k])
    ends = np.unique(np.clip(bends, first, max(first, mean_J[k] + 10 * scale_J[k])))
    return sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-9)[0] for a, b in pairwise(ends))


@pytest.mark.parametrize(("n_categories", "spread"), [(3, 1), (3, 5), (10, 1), (10, 4), (20, 1)])
def test_gaussian_law_agrees_with_adaptive_quadrature(n_categories, spread):
    theta_K = np.random.default_rng(n_categories).normal(size=n_categories) * spread
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 1e-6)):
        law_K = argmax_law(torch.tensor(theta_K, dtype=dtype)[None, None])[0, 0].double().exp().numpy()
        for k in range(0, n_categories, n_categories // 3):
            assert law_K[k] == pytest.approx(reference_law(theta_K, np.ones(n_categories), k), abs=tolerance)


@pytest.mark.parametrize("n_gaussians", [1, 2, 5, 9])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_igr_law_agrees_with_adaptive_quadrature(n_gaussians, spread):
    """However different the scales: at spread 3 they span several orders of magnitude."""
    random = np.random.default_rng(n_gaussians)
    c = threshold(torch.zeros(n_gaussians, dtype=torch.float64))
    for _ in range(3):
        mean_J, scale_J = random.normal(size=n_gaussians), np.exp(spread * random.normal(size=n_gaussians))
        law_K = igr_law(torch.tensor(mean_J)[None, None], torch.tensor(scale_J)[None, None], c)[0, 0].exp().numpy()
        assert law_K.sum() == pytest.approx(1)
        assert law_K[-1] == pytest.approx(special.ndtr((c.item() - mean_J) / scale_J).prod(), abs=1e-6)
        for k in range(0, n_gaussians, 3):
            assert law_K[k] == pytest.approx(reference_law(mean_J, scale_J, k, c.item()), abs=1e-6)


@pytest.mark.parametrize("name", [*RELAXED, "perturbed_argmax", "sparse_marginal"])
def test_law_is_normalised_and_finite_at_extreme_logits(name):
    estimator = build(name)
    for dtype, size in product((torch.float64, torch.float32, torch.bfloat16), (1.0, 30.0, 200.0, 1e4)):
        leaf_BLH = (torch.arange(24).view(4, 2, 3) % 5 - 2.0).mul(size).to(dtype)
        leaf_BLH = torch.cat([leaf_BLH, leaf_BLH[..., :1]], -1).requires_grad_()  # an even number for igr
        log_probs_BLK = estimator.class_logits(leaf_BLH)
        assert log_probs_BLK.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(log_probs_BLK.exp().sum(-1), torch.ones(4, 2, dtype=log_probs_BLK.dtype))
        (gradient_BLH,) = torch.autograd.grad((log_probs_BLK.exp() * log_probs_BLK).sum(), leaf_BLH)
        assert log_probs_BLK.isfinite().all()
        assert gradient_BLH.isfinite().all()


@pytest.mark.parametrize("name", RELAXED)
def test_law_is_differentiable(name):
    estimator = build(name)
    leaf_BLH = logits_for(estimator, 2).requires_grad_()
    assert torch.autograd.gradcheck(estimator.class_logits, leaf_BLH, atol=1e-5)


def test_gaussian_law_of_equal_logits_is_uniform_and_of_one_class_certain():
    for n_categories in (1, 2, 10, 64):
        law_BLK = build("gaussian_softmax").class_logits(torch.full((1, 1, n_categories), 3.0)).exp()
        torch.testing.assert_close(law_BLK, torch.full((1, 1, n_categories), 1 / n_categories))


def test_gaussian_law_is_shift_invariant_and_keeps_the_order():
    logits_BLK = example_logits()
    law_BLK = argmax_law(logits_BLK)
    torch.testing.assert_close(law_BLK, argmax_law(logits_BLK + 1000))
    assert torch.equal(law_BLK.argsort(-1), logits_BLK.argsort(-1))


def test_igr_law_is_the_same_in_one_call_or_many(monkeypatch):
    estimator = build("igr")
    whole_BLK = estimator.class_logits(logits_for(estimator, 7))
    monkeypatch.setattr("estimators.igr.NODES_PER_CALL", 500)
    torch.testing.assert_close(estimator.class_logits(logits_for(estimator, 7)), whole_BLK)


# Invertible Gaussian reparameterisation.


@pytest.mark.parametrize("n_categories", [2, 3, 10, 40])
def test_igr_prior_gives_the_uniform_law(n_categories):
    """At zero outputs, which are the prior N(0, I): by quadrature, and as codes."""
    outputs_BLH = torch.zeros(1, 1, 2 * (n_categories - 1), dtype=torch.float64)
    mean_BLJ, scale_BLJ = moments(outputs_BLH)
    torch.testing.assert_close(mean_BLJ, torch.zeros_like(mean_BLJ))
    torch.testing.assert_close(scale_BLJ, torch.ones_like(scale_BLJ))
    estimator = build("igr")
    assert estimator.kl(outputs_BLH).abs() < 1e-12
    uniform_K = torch.full((n_categories,), 1 / n_categories, dtype=torch.float64)
    torch.testing.assert_close(estimator.class_logits(outputs_BLH)[0, 0].exp(), uniform_K, rtol=1e-5, atol=0)
    codes_NLK = soft_codes(estimator, outputs_BLH[0], n_categories=n_categories)
    assert stats.chisquare(torch.bincount(codes_NLK.argmax(-1)[:, 0], minlength=n_categories)).pvalue > P_VALUE


def test_igr_kl_is_that_of_the_normal_laws():
    estimator = build("igr")
    outputs_BLH = 3 * example_logits(5, 2, 6)
    mean_BLJ, scale_BLJ = moments(outputs_BLH)
    normal = torch.distributions.Normal
    expected_BLJ = torch.distributions.kl_divergence(normal(mean_BLJ, scale_BLJ), normal(0.0, 1.0))
    torch.testing.assert_close(estimator.kl(outputs_BLH), expected_BLJ.sum((-1, -2)))
    assert torch.autograd.gradcheck(estimator.kl, outputs_BLH.clone().requires_grad_())


def test_igr_kl_bounds_that_of_the_one_hot_codes():
    """Data processing: a function of the Gaussians is no farther from its prior than they are."""
    estimator = build("igr")
    outputs_BLH = 2 * example_logits(50, 2, 4)
    law_BLK = estimator.class_logits(outputs_BLH)
    discrete_B = (law_BLK.exp() * (law_BLK + math.log(3))).sum((-1, -2))
    assert (discrete_B <= estimator.kl(outputs_BLH)).all()
    assert (discrete_B >= 0).all()


def test_igr_scale_is_positive_and_finite_everywhere():
    raw = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        outputs_BLH = torch.stack([torch.zeros(5), raw], -1).view(5, 1, 2).to(dtype).requires_grad_()
        _, scale_BLJ = moments(outputs_BLH)
        kl_B = build("igr").kl(outputs_BLH)
        (gradient_BLH,) = torch.autograd.grad(kl_B.sum(), outputs_BLH)
        assert scale_BLJ.min() >= SMALLEST_SCALE * (1 - 1e-6)
        assert kl_B.isfinite().all()
        assert gradient_BLH.isfinite().all()


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_softmax_plus_plus_inverts(tau):
    """u_k = τ log(S_k/S_K) + c recovers the Gaussians, of the right mean and scale."""
    logits_LH = example_logits(1, 2, 4)[0]
    codes_NLK = soft_codes(build("igr", tau=tau), logits_LH)
    torch.testing.assert_close(codes_NLK.sum(-1), torch.ones(N_REPLICAS, 2, dtype=torch.float64))
    log_codes_NLK = codes_NLK.log()
    mean_LJ, scale_LJ = (part[0] for part in moments(logits_LH[None]))
    u_NLJ = tau * (log_codes_NLK[..., :-1] - log_codes_NLK[..., -1:]) + threshold(mean_LJ)
    standard = ((u_NLJ - mean_LJ) / scale_LJ).flatten(1)
    assert z_scores(standard, torch.zeros(4)).abs().max() < MAX_Z
    for column in standard.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > P_VALUE


def test_igr_refuses_one_class_and_asks_for_two_numbers_a_gaussian():
    estimator = build("igr")
    with pytest.raises(ValueError, match=r"^igr: expected n_categories >= 2, got 1\.$"):
        estimator.check_shape(3, 1)
    estimator.check_shape(3, 2)
    assert [estimator.n_outputs(n_categories) for n_categories in (2, 3, 10)] == [2, 4, 18]


def test_igr_refuses_an_odd_number_of_outputs():
    with pytest.raises(ValueError, match=r"^igr: expected 2\(K − 1\) numbers for each latent, got 3\.$"):
        build("igr")(example_logits(), cubic_cost(example_weights()))


# Perturbed argmax.


def linear_cost(z_SBLK):
    return (z_SBLK * example_weights().to(z_SBLK.dtype)).sum((-1, -2))


@pytest.mark.parametrize("params", [{}, {"tau": 0.5, "n_draws": 4}])
def test_perturbed_argmax_is_unbiased_under_its_own_law_where_the_cost_is_linear(params):
    cost_z, gradient_z = bias_scores(build("perturbed_argmax", **params), linear_cost)
    assert cost_z.abs() < MAX_Z
    assert gradient_z.abs().max() < MAX_Z


def test_perturbed_argmax_gives_tau_the_slope_of_the_expected_cost():
    """Linear cost: Σ_k P_k(θ/τ) w_k, differentiated in τ by quadrature."""
    tau, kept = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), []
    logits_BLK = example_logits()
    expected = linear_cost(argmax_law(logits_BLK / tau).exp()[None]).sum()
    (expected_slope,) = torch.autograd.grad(expected, tau)
    estimator = build("perturbed_argmax", n_draws=1000)
    torch.manual_seed(0)
    for _ in range(50):
        estimator.tau = tau
        kept += torch.autograd.grad(estimator(logits_BLK, linear_cost).cost_B.sum(), tau)
    draws_N = torch.stack(kept)
    assert z_scores(draws_N, expected_slope).abs() < MAX_Z
    assert expected_slope.abs() > 10 * draws_N.std() / math.sqrt(50)


def test_perturbed_argmax_varies_as_one_over_its_draws_where_the_cost_is_linear():
    row_NLK = example_logits()[0].expand(N_REPLICAS, -1, -1)
    variance = [
        run(build("perturbed_argmax", n_draws=n_draws), row_NLK, linear_cost)[1].var(0).sum().item()
        for n_draws in (4, 16)
    ]
    assert variance[1] == pytest.approx(variance[0] / 4, rel=0.1)


def test_perturbed_argmax_shows_the_cost_multiples_of_one_over_its_draws():
    codes_NLK = soft_codes(build("perturbed_argmax", n_draws=4), example_logits()[0])
    assert set(codes_NLK.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    expected_LK = argmax_law(example_logits()[:1])[0].exp()
    assert z_scores(codes_NLK, expected_LK).abs().max() < MAX_Z


# Sums over all codes.


def test_sparse_marginal_is_the_enumerated_expectation():
    weights_LK, logits_BLK = example_weights(3, 4), 0.6 * example_logits(6, 3, 4)
    cost = cubic_cost(weights_LK)
    cost_B, _ = run(build("sparse_marginal"), logits_BLK, cost)
    for value, theta_LK in zip(cost_B, logits_BLK, strict=True):
        probs = [entmax(x_K, 2.0) for x_K in theta_LK]
        expected = 0.0
        for code in product(range(4), repeat=3):
            z_LK = nn.functional.one_hot(torch.tensor(code), 4).double()
            expected += math.prod(probs[l][k].item() for l, k in enumerate(code)) * cost(z_LK[None, None])[0, 0]  # noqa: E741
        torch.testing.assert_close(value, expected)


def test_sparse_marginal_with_full_support_is_exact_at_the_logits_of_its_law():
    """Where no probability is 0, the law is a softmax of log sparsemax(θ): exact, and the chain rule, agree."""
    estimator, cost = build("sparse_marginal"), cubic_cost(example_weights())
    leaf_BLK = (0.2 * example_logits()).requires_grad_()
    law_BLK = estimator.class_logits(leaf_BLK)
    assert law_BLK.exp().min() > 0.01
    cost_B, gradient_BLK = run(estimator, leaf_BLK, cost)
    expected_B = build("exact")(law_BLK, cost).cost_B
    torch.testing.assert_close(cost_B, expected_B.detach())
    torch.testing.assert_close(gradient_BLK, torch.autograd.grad(expected_B.sum(), leaf_BLK)[0])


def test_sparse_marginal_gradient_is_the_slope_of_its_cost_and_zero_off_the_support():
    estimator, cost, step = build("sparse_marginal"), cubic_cost(example_weights()), 1e-6
    logits_BLK = 1.5 * example_logits()
    _, gradient_BLK = run(estimator, logits_BLK, cost)
    outside_BLK = estimator.probabilities(logits_BLK) == 0
    assert 4 <= outside_BLK.sum() <= 20
    assert (gradient_BLK[outside_BLK] == 0).all()
    for index in np.ndindex(*logits_BLK.shape):
        nudge_BLK = torch.zeros_like(logits_BLK)
        nudge_BLK[index] = step
        high, low = (run(estimator, logits_BLK + sign * nudge_BLK, cost)[0].sum() for sign in (1, -1))
        torch.testing.assert_close(gradient_BLK[index], (high - low) / (2 * step), rtol=1e-6, atol=1e-6)


def test_sparse_marginal_agrees_with_the_yardstick_where_the_support_is_not_full():
    """log 0 becomes a number, and no gradient passes through it."""
    estimator, cost = build("sparse_marginal"), cubic_cost(example_weights())
    for theta_LK in (2 * example_logits()[0], 1e4 * example_logits()[1], torch.zeros(2, 3, dtype=torch.float64)):
        cost_B, gradient_BLK = run(estimator, theta_LK[None], cost)
        expected, expected_LK = exact_gradient(theta_LK, cost, estimator.class_logits)
        torch.testing.assert_close(cost_B[0], expected)
        torch.testing.assert_close(gradient_BLK[0], expected_LK)


def test_sparse_marginal_ignores_the_cost_of_impossible_codes():
    logits_BLK = torch.tensor([[[0.0, 0.3, -5.0]]], dtype=torch.float64)
    plain, raised = (
        run(build("sparse_marginal"), logits_BLK, lambda z, high=high: (z[..., 1] + high * z[..., 2]).sum(-1))
        for high in (0.0, 1e6)
    )
    assert torch.equal(plain[0], raised[0])
    assert torch.equal(plain[1], raised[1])


def test_sparse_marginal_refuses_more_codes_than_it_may_enumerate():
    estimator = build("sparse_marginal")
    estimator.check_shape(7, 4)
    assert estimator.n_cost_evals(7, 4) == 16384
    with pytest.raises(
        ValueError, match=r"^sparse_marginal: expected n_categories\^n_latents <= max_codes = 16384, got 4\^8"
    ):
        estimator(torch.zeros(1, 8, 4), cubic_cost(torch.zeros(8, 4)))


class Decoder:
    """A small network as the cost, which counts the codes that it sees."""

    def __init__(self, n_inputs, *, trained=True):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(n_inputs, 7), nn.Tanh(), nn.Linear(7, 1)).double()
        self.network.requires_grad_(trained)
        self.n_codes, self.most = 0, 0

    def __call__(self, z_SBLK):
        self.n_codes, self.most = self.n_codes + len(z_SBLK), max(self.most, len(z_SBLK))
        return self.network(z_SBLK.flatten(2)).squeeze(-1) ** 2


def gradients(name, decoder, logits_BLK):
    leaf_BLK = logits_BLK.clone().requires_grad_()
    trained = [p for p in decoder.network.parameters() if p.requires_grad]
    cost_B = build(name)(leaf_BLK, decoder).cost_B
    return [cost_B.detach(), *torch.autograd.grad(cost_B.sum(), [leaf_BLK, *trained])]


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_the_same_in_one_call_or_many_also_for_a_trained_decoder(name, monkeypatch):
    """In many calls the decoder is asked twice for each code if it is trained, and once if it is not."""
    logits_BLK = example_logits(2, 4, 3)
    whole = gradients(name, Decoder(12), logits_BLK)
    monkeypatch.setattr("estimators.base.CODES_IN_GRAPH", 20)
    for trained in (True, False):
        decoder = Decoder(12, trained=trained)
        pieces = gradients(name, decoder, logits_BLK)
        assert decoder.n_codes == 81 * (1 + trained)
        assert decoder.most <= 10
        for one, other in zip(whole, pieces, strict=False):
            torch.testing.assert_close(one, other)
    with torch.no_grad():
        decoder = Decoder(12)
        torch.testing.assert_close(build(name)(logits_BLK, decoder).cost_B, whole[0])
    assert decoder.n_codes == 81


@pytest.mark.parametrize("name", SUMS)
def test_random_decoders_see_the_same_noise_when_they_are_asked_again(name, monkeypatch):
    """Dropout: value and gradient belong to one another."""
    monkeypatch.setattr("estimators.base.CODES_IN_GRAPH", 20)
    weights_LK = example_weights(4, 3).requires_grad_()

    def cost(z_SBLK):
        return nn.functional.dropout(z_SBLK * weights_LK, 0.5, training=True).sum((-1, -2))

    torch.manual_seed(0)
    cost_B = build(name)(example_logits(2, 4, 3), cost).cost_B
    (slope_LK,) = torch.autograd.grad(cost_B.sum(), weights_LK)
    torch.testing.assert_close((slope_LK * weights_LK).sum(), cost_B.sum())  # linear in the weights


@pytest.mark.parametrize("name", SUMS)
def test_autograd_keeps_no_activation_of_the_decoder_beyond_one_call(name, monkeypatch):
    """What the graph holds after the forward pass: far less than the activations of all codes."""
    kept = {}
    for codes_per_call in (81, 10):
        monkeypatch.setattr("estimators.base.CODES_IN_GRAPH", 2 * codes_per_call)
        decoder = Decoder(12)
        wide = nn.Sequential(nn.Linear(12, 500), nn.Tanh(), nn.Linear(500, 1)).double()
        decoder.network, sizes = wide, []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            build(name)(example_logits(2, 4, 3).requires_grad_(), decoder)
        kept[codes_per_call] = sum(sizes)
    assert kept[81] > 81 * 2 * 500 * 8
    assert kept[10] < kept[81] / 10


# torch.compile.


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RELAXED, "perturbed_argmax", "sparse_marginal"])
def test_compiles_to_the_same_gradient(name):
    torch.compiler.reset()
    estimator = build(name)
    logits_BLH, cost = logits_for(estimator), cost_for(estimator)

    def step(leaf_BLH):
        return estimator(leaf_BLH, cost).cost_B.sum()

    compiled = torch.compile(step, fullgraph=name != "sparse_marginal", backend="aot_eager")
    for seed in range(3):
        if estimator.uses_tau:
            estimator.tau = 1.0 / (seed + 1)
        both = []
        for function in (step, compiled):
            leaf_BLH = logits_BLH.clone().requires_grad_()
            torch.manual_seed(seed)
            both += torch.autograd.grad(function(leaf_BLH), leaf_BLH)
        torch.testing.assert_close(*both)
