"""One-hot codes and a differentiable cost: identities, enumerated and integrated means, laws, variances and limits."""

import math

import pytest
import torch
from estimator_cases import make
from families.straight_through import FORMULAS, RaoTotalDerivative, darn_jacobian, reinmax_jacobian, zgr_jacobian
from naive_formulas import jacobian, onehot, same_noise, softmax, value_and_slope
from scipy import integrate, stats
from torch.utils._python_dispatch import TorchDispatchMode

from estimators import build
from estimators.gumbel import perturb, perturb_given, sample_classes
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    all_codes,
    bias_scores,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)
from estimators.simplex import softmax_slope

SLOPE = tuple(FORMULAS)
P_VALUE = 1e-6
"""A test of a law with a fixed seed fails below this: one false alarm in a million."""


def gradients(estimator, logits_LK, cost, seed=0, n_replicas=N_REPLICAS):
    """Draw the gradient of one example n_replicas times, as one batch."""
    return run(estimator, logits_LK.expand(n_replicas, -1, -1), cost, seed)[1]


def mean_scores(estimator, expected_LK, logits_LK, cost, seed=0):
    return z_scores(gradients(estimator, logits_LK, cost, seed), expected_LK).abs().max()


def difference_scores(one_NLK, other_NLK):
    """z-scores of the difference of two independent means."""
    error_LK = (one_NLK.var(0) / len(one_NLK) + other_NLK.var(0) / len(other_NLK)).sqrt()
    return ((one_NLK.mean(0) - other_NLK.mean(0)) / error_LK.clamp(min=1e-9)).abs().max()


def code_probability(logits_LK, z_LK):
    return math.prod((softmax(theta_K) * z_K).sum().item() for theta_K, z_K in zip(logits_LK, z_LK, strict=True))


def enumerated_mean(estimator, logits_LK, cost):
    """Σ_D π_D · formula(D), for a formula that is random through D alone: noise of 1e3 at D's classes leads to D."""
    mean_LK = torch.zeros_like(logits_LK)
    for z_LK in all_codes(*logits_LK.shape):
        gradient_LK = FORMULAS[estimator.name](estimator, logits_LK, 1e3 * z_LK, None, cost)
        mean_LK += code_probability(logits_LK, z_LK) * gradient_LK
    return mean_LK


# ReinMax, ZGR and DARN.


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (3, 5), (2, 1)])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_reinmax_at_one_is_zgr_is_half_of_straight_through_plus_darn_by_sample(shape, n_samples):
    logits_BLK, cost = example_logits(5, *shape), cubic_cost(example_weights(*shape))
    by_name = {
        name: run(build(name, n_samples=n_samples), logits_BLK, cost, seed=4)[1]
        for name in ("reinmax", "zgr", "straight_through", "darn")
    }
    expected_BLK = by_name["straight_through"] / 2 + by_name["darn"]
    torch.testing.assert_close(by_name["reinmax"], by_name["zgr"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(by_name["zgr"], expected_BLK, rtol=1e-12, atol=1e-13)


def test_reinmax_at_another_tau_is_not_zgr():
    logits_BLK, cost = example_logits(), cubic_cost(example_weights())
    one, other = (run(build(name), logits_BLK, cost)[1] for name in ("reinmax", "zgr"))
    assert torch.allclose(one, other)
    assert not torch.allclose(run(build("reinmax", tau=1.3), logits_BLK, cost)[1], other, rtol=1e-2)


@pytest.mark.parametrize("n_categories", [1, 2, 3, 7])
def test_the_published_matrices_of_reinmax_and_zgr_are_one(n_categories):
    theta_K = 3 * torch.arange(n_categories, dtype=torch.float64).sin()
    for k in range(n_categories):
        z_K = onehot(k, n_categories)
        parts_KK = jacobian(softmax(theta_K)) / 2 + darn_jacobian(theta_K, z_K)
        torch.testing.assert_close(reinmax_jacobian(theta_K, z_K, 1.0), zgr_jacobian(theta_K, z_K), rtol=0, atol=1e-15)
        torch.testing.assert_close(zgr_jacobian(theta_K, z_K), parts_KK, rtol=0, atol=1e-15)


def polynomial(n_categories, degree, seed):
    """A random polynomial of one code, with all mixed terms, up to degree 2 or 3."""
    generator = torch.Generator().manual_seed(seed)
    b_K, a_KK, c_KKK = (torch.randn((n_categories,) * n, dtype=torch.float64, generator=generator) for n in (1, 2, 3))

    def cost(z_SBLK):
        z_SBK = z_SBLK[..., 0, :]
        value_SB = z_SBK @ b_K + torch.einsum("sbi,ij,sbj->sb", z_SBK, a_KK, z_SBK)
        return value_SB + (degree == 3) * torch.einsum("sbi,sbj,sbk,ijk->sb", z_SBK, z_SBK, z_SBK, c_KKK)

    return cost


def enumerated_bias(monkeypatch, estimator, module, n_categories, cost):
    """‖Σ_D π_D ĝ(D) − ∇‖/‖∇‖ for one latent: the estimator itself is given each class in turn, nothing is sampled."""
    monkeypatch.setattr(f"estimators.{module}.sample_classes", lambda _, n: torch.arange(n_categories).view(n, -1, 1))
    logits_LK = example_logits(1, 1, n_categories)[0]
    gradient_KLK = gradients(estimator, logits_LK, cost, n_replicas=n_categories)
    mean_LK = (logits_LK.softmax(-1).view(-1, 1, 1) * gradient_KLK).sum(0)
    truth_LK = exact_gradient(logits_LK, cost)[1]
    return ((mean_LK - truth_LK).norm() / truth_LK.norm()).item()


@pytest.mark.parametrize("n_categories", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_zgr_and_reinmax_at_one_have_no_bias_on_a_quadratic_and_others_have(monkeypatch, n_categories, seed):
    def bias(name, degree, module="reinmax", **params):
        cost = polynomial(n_categories, degree, seed)
        return enumerated_bias(monkeypatch, build(name, **params), module, n_categories, cost)

    assert bias("zgr", 2) < 1e-13
    assert bias("reinmax", 2) < 1e-13
    assert bias("reinmax", 2, tau=1.3) > 1e-2
    assert bias("darn", 2) > 1e-2
    assert bias("straight_through", 2, module="straight_through") > 1e-2
    assert bias("gapped_st", 2, module="gapped_st") > 1e-2
    for name in ("zgr", "reinmax"):
        assert bias(name, 3) > 1e-2


def quadratic_in_each_latent(z_SBLK):
    """Π_l (1 + w_l·z_l)²: quadratic in each latent, of degree 4 in all, and the latents interact."""
    return ((1 + (z_SBLK * example_weights().to(z_SBLK.dtype)).sum(-1)) ** 2).prod(-1)


@pytest.mark.parametrize("name", ["zgr", "reinmax"])
def test_no_bias_where_the_cost_is_quadratic_in_each_of_several_latents(name):
    assert bias_scores(build(name), quadratic_in_each_latent)[1].abs().max() < MAX_Z


@pytest.mark.parametrize(
    ("name", "params"), [("reinmax", {"tau": 1.5}), ("darn", {}), ("reinmax_rao", {}), ("straight_through", {})]
)
def test_the_others_are_biased_on_a_quadratic_cost(name, params):
    assert bias_scores(build(name, **params), quadratic_in_each_latent)[1].abs().max() > MAX_Z


def linear_cost(z_SBLK):
    return (z_SBLK * example_weights().to(z_SBLK.dtype)).sum((-1, -2))


@pytest.mark.parametrize(("name", "params"), [("reinmax", {"tau": 1.5}), ("reinmax_rao", {})])
def test_reinmax_off_one_and_reinmax_rao_are_biased_even_on_a_linear_cost(name, params):
    assert bias_scores(build("reinmax"), linear_cost)[1].abs().max() < MAX_Z
    assert bias_scores(build(name, **params), linear_cost)[1].abs().max() > MAX_Z


def test_half_the_gradient_is_missing_from_darn_where_the_cost_is_linear():
    logits_LK = example_logits()[0]
    truth_LK = exact_gradient(logits_LK, linear_cost)[1]
    assert mean_scores(build("darn"), truth_LK / 2, logits_LK, linear_cost) < MAX_Z
    assert mean_scores(build("darn"), truth_LK, logits_LK, linear_cost) > MAX_Z


@pytest.mark.parametrize("target", [0.45, 0.2])
def test_darn_points_away_from_one_minus_the_target_of_a_quadratic_whatever_is_downhill(target):
    """½p(1−p)[(1−p)f'(1) + p f'(0)] for f = (z − c)², so that p = 1 − c is a fixed point, and not a stable one."""

    def slope(name, p):
        logits_LK = torch.tensor([[0.0, math.log(p / (1 - p))]])
        gradient_BLK = gradients(build(name), logits_LK, lambda z_SBLK: (z_SBLK[..., 0, 1] - target).square())
        return gradient_BLK[:, 0, 1].mean().item()

    for p in (0.5 - target / 2, 1 - target, 1 - target / 2):
        expected = p * (1 - p) * (1 - target - p)
        assert slope("darn", p) == pytest.approx(expected, abs=0.003)
        assert slope("zgr", p) == pytest.approx(p * (1 - p) * (1 - 2 * target), abs=0.003)


def test_gumbel_rao_tends_to_zgr_as_tau_falls_code_by_code():
    """With the same seed both see the same code; 400 000 conditional draws stand for their mean, to 4 %."""
    logits_BLK, cost = example_logits(1, 2, 3), cubic_cost(example_weights())
    for seed in range(3):
        limit_BLK = run(build("zgr"), logits_BLK, cost, seed)[1]
        error = [
            (run(build("gumbel_rao", tau=tau, n_draws=400_000), logits_BLK, cost, seed)[1] - limit_BLK).norm()
            for tau in (1.0, 0.02)
        ]
        assert error[1] < 0.04 * limit_BLK.norm()
        assert error[1] < error[0] / 4


# Means at K = 3: what an estimator's own definition says, against many draws. At K = 2: test_means.py.

ENUMERATED = [
    ("reinmax", {}),
    ("reinmax", {"tau": 1.5}),
    ("zgr", {}),
    ("darn", {}),
    ("gapped_st", {}),
    ("gapped_st", {"gap": 0.3, "tau": 0.5}),
    ("gapped_st", {"gap": "p"}),
]


@pytest.mark.parametrize(("name", "params"), ENUMERATED)
def test_mean_is_the_formula_averaged_over_all_codes(name, params):
    logits_LK, cost, estimator = example_logits()[0], cubic_cost(example_weights()), build(name, **params)
    expected_LK = enumerated_mean(estimator, logits_LK, cost)
    assert mean_scores(estimator, expected_LK, logits_LK, cost) < MAX_Z
    assert mean_scores(estimator, 1.1 * expected_LK, logits_LK, cost) > MAX_Z


def crossing_probability(weight_K, stretch_K, d, k):
    """P(d = argmin T, k = argmin c·T), T_j ~ Exp(weight_j) independent, c the stretch, d ≠ k.

    T_k = e^u T_d with 0 <= u <= log c_d/c_k, and every other T_j > max(T_d, c_k T_k/c_j): the integral over T_d is
    e^u/rate².
    """
    ratio_K = stretch_K[k] / stretch_K
    if ratio_K[d] >= 1:
        return 0.0

    others = [j for j in range(len(weight_K)) if j not in (d, k)]

    def density(u):
        rho = math.exp(u)
        rate = weight_K[d] + weight_K[k] * rho + sum(weight_K[j] * max(1.0, ratio_K[j].item() * rho) for j in others)
        return weight_K[d] * weight_K[k] * rho / rate**2

    end = -ratio_K[d].log().item()
    kinks = [kink for j in others if 0 < (kink := -ratio_K[j].log().item()) < end]
    return integrate.quad(density, 0.0, end, points=kinks or None, epsabs=1e-12, limit=200)[0]


def imle_mean(lam, logits_LK, cost):
    """Σ_D P(D, D') (D − D')/λ, each latent's D' given the codes of the others.

    e^{−x} is exponential, its smallest entry is D, and a step of λg stretches it by e^{λg}.
    """
    n_latents, n_categories = logits_LK.shape
    mean_LK = torch.zeros_like(logits_LK)
    for z_LK in all_codes(n_latents, n_categories):
        slope_LK = value_and_slope(cost, z_LK)[1]
        for latent in range(n_latents):
            others = [j for j in range(n_latents) if j != latent]
            prob = code_probability(logits_LK[others], z_LK[others])
            weight_K, stretch_K = softmax(logits_LK[latent]), (lam * slope_LK[latent]).exp()
            d = int(z_LK[latent].argmax())
            for k in set(range(n_categories)) - {d}:
                crossing = prob * crossing_probability(weight_K, stretch_K, d, k)
                mean_LK[latent] += crossing * (onehot(d, n_categories) - onehot(k, n_categories)) / lam
    return mean_LK


@pytest.mark.parametrize("lam", [0.03, 0.3, 3.0])
def test_mean_of_imle_is_the_integral_over_its_noise(lam):
    logits_LK, cost = example_logits()[0], cubic_cost(example_weights())
    expected_LK = imle_mean(lam, logits_LK, cost)
    assert mean_scores(build("imle", lam=lam), expected_LK, logits_LK, cost) < MAX_Z
    assert mean_scores(build("imle", lam=lam), 1.3 * expected_LK, logits_LK, cost) > MAX_Z


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_means_hold_with_every_seed(seed):
    logits_LK, cost = example_logits()[0], cubic_cost(example_weights())
    for name, params in ENUMERATED:
        estimator = build(name, **params)
        assert mean_scores(estimator, enumerated_mean(estimator, logits_LK, cost), logits_LK, cost, seed) < MAX_Z
    assert mean_scores(build("imle", lam=0.3), imle_mean(0.3, logits_LK, cost), logits_LK, cost, seed) < MAX_Z
    for tau in (0.3, 1.0, 2.0):
        one, other = build("gumbel_rao", tau=tau), build("st_gumbel_softmax", tau=tau)
        draws = gradients(one, logits_LK, cost, seed), gradients(other, logits_LK, cost, 100 + seed)
        assert difference_scores(*draws) < MAX_Z


# Gumbel-Rao.


@pytest.mark.parametrize("n_draws", [1, 7])
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_gumbel_rao_has_the_mean_of_straight_through_gumbel_softmax(tau, n_draws):
    logits_LK, cost = example_logits()[0], cubic_cost(example_weights())
    plain_NLK = gradients(build("st_gumbel_softmax", tau=tau), logits_LK, cost, seed=1)
    assert (
        difference_scores(gradients(build("gumbel_rao", tau=tau, n_draws=n_draws), logits_LK, cost), plain_NLK) < MAX_Z
    )


def test_the_total_derivative_through_the_conditional_draws_has_another_mean():
    """What the paper writes; hence the departure."""
    logits_LK, cost = example_logits()[0], cubic_cost(example_weights())
    plain_NLK = gradients(build("st_gumbel_softmax", tau=0.7), logits_LK, cost, seed=1)
    assert difference_scores(gradients(RaoTotalDerivative(), logits_LK, cost), plain_NLK) > MAX_Z


def total_variance(estimator, seed=0):
    return gradients(estimator, example_logits()[0], cubic_cost(example_weights()), seed).var(0).sum().item()


def test_variance_of_gumbel_rao_falls_faster_than_that_of_independent_draws():
    """Theirs is A + B/n_draws, A + B that of straight-through Gumbel-Softmax, so that V1 − V4 = 0.8 (V1 − V16)."""
    variance = {n: total_variance(build("gumbel_rao", tau=0.3, n_draws=n), seed=n) for n in (1, 4, 16)}
    assert abs(variance[1] / total_variance(build("st_gumbel_softmax", tau=0.3)) - 1) < 0.06
    assert variance[16] < variance[4] < variance[1]
    assert 0.83 < (variance[1] - variance[4]) / (variance[1] - variance[16]) < 0.93
    assert variance[16] < 0.6 * variance[1]


def test_reinmax_rao_varies_less_with_more_draws_and_less_than_reinmax():
    variance = [total_variance(build("reinmax_rao", n_draws=n)) for n in (1, 4, 16)]
    assert variance == sorted(variance, reverse=True)
    assert variance[-1] < total_variance(build("reinmax"))


# Conditional Gumbel noise.


def conditional(logits_K, chosen, n_draws):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        class_SBL = torch.full((1, 1, 1), chosen)
        return perturb_given(logits_K.view(1, 1, -1), class_SBL, n_draws).view(n_draws, -1)


def rejected(logits_K, chosen, n_draws):
    """Perturbed normalised logits, kept where their argmax is the chosen class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        x_NK = perturb(logits_K.log_softmax(-1).view(1, 1, -1), n_draws).view(n_draws, -1)
    return x_NK[x_NK.argmax(-1) == chosen]


@pytest.mark.parametrize("chosen", range(4))
def test_conditional_noise_has_the_law_that_rejection_has(chosen):
    """Each entry, and each difference to the largest, by Kolmogorov–Smirnov tests; a wrong class is told apart."""
    logits_K = torch.tensor([0.5, -1.0, 1.5, 0.0], dtype=torch.float64) + 3.0
    ours_NK, theirs_NK = conditional(logits_K, chosen, 20_000), rejected(logits_K, chosen, 200_000)
    assert (ours_NK.argmax(-1) == chosen).all()
    others = [k for k in range(4) if k != chosen]
    for k in range(4):
        assert stats.ks_2samp(ours_NK[:, k], theirs_NK[:, k]).pvalue > P_VALUE
    for k in others:
        gaps = [x_NK[:, chosen] - x_NK[:, k] for x_NK in (ours_NK, theirs_NK)]
        assert stats.ks_2samp(*gaps).pvalue > P_VALUE
    ours_corr, theirs_corr = (torch.corrcoef(x_NK[:, others].T) for x_NK in (ours_NK, theirs_NK))
    assert (ours_corr - theirs_corr).abs().max() < 0.05
    wrong_NK = conditional(logits_K, others[0], 20_000)
    assert stats.ks_2samp(wrong_NK[:, chosen], theirs_NK[:, chosen]).pvalue < P_VALUE


@pytest.mark.parametrize("chosen", range(3))
def test_the_largest_conditional_perturbation_is_gumbel_about_the_logsumexp(chosen):
    """Of the normalised logits, whose logsumexp is 0, whatever the class: the maximum is independent of the argmax."""
    x_NK = conditional(torch.tensor([2.0, -1.0, 0.3], dtype=torch.float64), chosen, 20_000)
    assert stats.kstest(x_NK.amax(-1).numpy(), "gumbel_r").pvalue > P_VALUE
    assert stats.kstest((x_NK.amax(-1) + 0.1).numpy(), "gumbel_r").pvalue < P_VALUE


def test_averaged_over_the_classes_conditional_noise_is_free_noise():
    logits_BLK = example_logits(1, 1, 3).expand(N_REPLICAS, -1, -1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        x_NK = perturb_given(logits_BLK, sample_classes(logits_BLK, 1), 1).view(N_REPLICAS, 3)
    for noise_N in (x_NK - logits_BLK[:, 0].log_softmax(-1)).unbind(-1):
        assert stats.kstest(noise_N.numpy(), "gumbel_r").pvalue > P_VALUE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_conditional_noise_survives_extreme_logits_and_stays_wide(dtype):
    logits_BLK = torch.tensor([[[1e4, -1e4, 0.0], [200.0, 200.0, -200.0], [-1e4, -1e4, -1e4]]], dtype=dtype)
    for chosen in range(3):
        x_MSBLK = perturb_given(logits_BLK, torch.full((2, 1, 3), chosen), 50)
        assert x_MSBLK.shape == (50, 2, 1, 3, 3)
        assert x_MSBLK.dtype == torch.float32
        assert x_MSBLK.isfinite().all()
        assert (x_MSBLK[..., chosen] == x_MSBLK.amax(-1)).all()


def test_conditional_noise_is_differentiable_in_the_logits():
    def draw(logits_BLK):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return perturb_given(logits_BLK, torch.tensor([[[0, 2]], [[1, 1]]]), 3)

    assert torch.autograd.gradcheck(draw, example_logits(1, 2, 3).requires_grad_())


# Gapped straight-through.


def test_gapped_equals_argmax_where_the_code_is_the_mode_and_the_gap_is_there():
    logits_BLK, cost = torch.tensor([[[40.0, 36.5, 36.0]]], dtype=torch.float64), cubic_cost(example_weights(1, 3))
    same = [run(build(name, tau=2.0), logits_BLK, cost)[1] for name in ("gapped_st", "argmax_ste")]
    torch.testing.assert_close(*same, rtol=1e-12, atol=1e-15)
    wider = run(build("gapped_st", tau=2.0, gap=5.0), logits_BLK, cost)[1]
    assert wider.norm() < same[1].norm()


def test_gapped_gradient_vanishes_as_the_gap_grows():
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    sizes = [run(build("gapped_st", gap=gap), logits_BLK, cost)[1].norm().item() for gap in (0.1, 3.0, 10.0, 40.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-14 * sizes[0]


def test_gapped_does_not_jump_as_the_gap_goes_to_zero():
    """Then the sampled class ties with the mode and the others are capped there: nothing but the lift is left."""
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    small, smaller = (run(build("gapped_st", gap=gap), logits_BLK, cost)[1] for gap in (1e-6, 1e-9))
    torch.testing.assert_close(small, smaller, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prob", [0.01, 0.5, 0.99])
def test_gap_p_is_a_number_that_depends_on_the_probability_of_the_code(monkeypatch, prob):
    logits_BLK = torch.tensor([[[math.log(prob), math.log(1 - prob)]]], dtype=torch.float64)
    monkeypatch.setattr("estimators.gapped_st.sample_classes", lambda *_: torch.zeros(1, 1, 1, dtype=torch.long))
    gap, cost = -math.log(1 - prob) / prob, cubic_cost(example_weights(1, 2))
    same = [run(build("gapped_st", gap=value), logits_BLK, cost)[1] for value in ("p", gap)]
    torch.testing.assert_close(*same, rtol=1e-12, atol=1e-15)
    other = run(build("gapped_st", gap=1.2 * gap), logits_BLK, cost)[1]
    assert not torch.allclose(other, same[0], rtol=1e-3)


def test_gap_p_stays_finite_where_the_code_is_certain():
    """So that a learned temperature gets a number, not 0 · ∞."""
    estimator, learned = build("gapped_st", gap="p"), torch.tensor(0.5, requires_grad=True)
    estimator.tau = learned
    leaf_BLK = torch.tensor([[[100.0, -100.0, 0.0]]], requires_grad=True)
    estimator(leaf_BLK, cubic_cost(example_weights(1, 3))).cost_B.sum().backward()
    assert leaf_BLK.grad.isfinite().all()
    assert learned.grad.isfinite()


# Decoupled temperatures.


def test_decoupled_at_temperatures_of_one_is_straight_through_gumbel_softmax():
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    for one, other in zip(
        run(build("decoupled_st_gs", n_samples=2), logits_BLK, cost),
        run(build("st_gumbel_softmax", n_samples=2), logits_BLK, cost),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_decoupled_at_equal_temperatures_is_st_gumbel_softmax_of_the_divided_logits(tau):
    """It is st_gumbel_softmax(tau=1) at θ/τ, hence 1/τ of its gradient by the chain rule, and the same codes."""
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    cost_B, gradient_BLK = run(build("decoupled_st_gs", tau_forward=tau, tau_backward=tau), logits_BLK, cost)
    expected_B, expected_BLK = run(build("st_gumbel_softmax"), logits_BLK / tau, cost)
    torch.testing.assert_close(cost_B, expected_B, rtol=0, atol=0)
    torch.testing.assert_close(gradient_BLK, expected_BLK / tau, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_decoupled_backward_temperature_divides_the_logits_and_not_the_noise(tau):
    """At τ_f = 1, τ_b = τ ≠ 1 the codes are those of st_gumbel_softmax(τ), the gradients are not.

    The relaxation is that of st_gumbel_softmax(τ) with its noise multiplied by τ: a linear cost, whose slope is
    everywhere the same, shows it.
    """
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    small, plain = (
        run(build(name, **params), logits_BLK, cost)
        for name, params in (("decoupled_st_gs", {"tau_backward": tau}), ("st_gumbel_softmax", {"tau": tau}))
    )
    torch.testing.assert_close(small[0], plain[0], rtol=0, atol=0)
    assert not torch.allclose(small[1], plain[1], rtol=0.1)
    noisier_BLK = logits_BLK + (tau - 1) * same_noise(1, logits_BLK)[0]
    decoupled_BLK = run(build("decoupled_st_gs", tau_backward=tau), logits_BLK, linear_cost)[1]
    torch.testing.assert_close(decoupled_BLK, run(build("st_gumbel_softmax", tau=tau), noisier_BLK, linear_cost)[1])


@pytest.mark.parametrize("tau_forward", [0.4, 3.0])
def test_codes_of_decoupled_follow_its_class_logits(tau_forward):
    cost, logits_LK = cubic_cost(example_weights()), example_logits()[0]
    estimator = build("decoupled_st_gs", tau_forward=tau_forward)
    assert bias_scores(estimator)[0].abs() < MAX_Z
    cost_N, _ = run(estimator, logits_LK.expand(N_REPLICAS, -1, -1), cost)
    assert z_scores(cost_N, exact_gradient(logits_LK, cost)[0]).abs() > MAX_Z


# I-MLE.


def test_imle_gradient_is_a_difference_of_two_codes():
    _, gradient_BLK = run(build("imle", lam=0.5), example_logits(256), cubic_cost(example_weights()))
    assert set(gradient_BLK.unique().tolist()) == {-2.0, 0.0, 2.0}
    assert (gradient_BLK.sum(-1) == 0).all()


@pytest.mark.parametrize("lam", [0.2, 2.0])
def test_mean_of_imle_on_a_linear_cost_is_the_difference_of_two_softmaxes(lam):
    """(π(θ) − π(θ − λg))/λ at every λ: the two argmaxes share their noise, and each is a sample."""
    logits_LK = example_logits()[0]
    step_LK = lam * example_weights()
    expected_LK = (logits_LK.softmax(-1) - (logits_LK - step_LK).softmax(-1)) / lam
    assert mean_scores(build("imle", lam=lam), expected_LK, logits_LK, linear_cost) < MAX_Z
    assert mean_scores(build("imle", lam=lam), 1.3 * expected_LK, logits_LK, linear_cost) > MAX_Z


def test_imle_is_nearly_unbiased_on_a_linear_cost_at_small_lambda_only():
    logits_LK = example_logits()[0]
    truth_LK = exact_gradient(logits_LK, linear_cost)[1]
    assert mean_scores(build("imle", lam=0.02), truth_LK, logits_LK, linear_cost) < MAX_Z
    assert mean_scores(build("imle", lam=2.0), truth_LK, logits_LK, linear_cost) > MAX_Z


def test_imle_with_a_small_lambda_is_rarely_nonzero_and_varies_as_one_over_lambda():
    logits_LK, cost = example_logits()[0], cubic_cost(example_weights())
    draws = {lam: gradients(build("imle", lam=lam), logits_LK, cost) for lam in (0.01, 0.04)}
    share = {lam: (draws[lam] != 0).any(-1).double().mean().item() for lam in draws}
    assert abs(share[0.04] / share[0.01] / 4 - 1) < 0.2
    assert share[0.01] < 0.05
    assert abs(draws[0.01].var(0).sum() / draws[0.04].var(0).sum() / 4 - 1) < 0.2


def test_imle_with_a_large_lambda_has_the_class_of_least_slope_as_its_target():
    logits_BLK, kept, lam = example_logits(32), [], 1e6

    def cost(z_SBLK):
        kept.append(z_SBLK.detach()[0])
        return cubic_cost(example_weights())(z_SBLK)

    _, gradient_BLK = run(build("imle", lam=lam), logits_BLK, cost)
    slope_BLK = torch.stack([value_and_slope(cubic_cost(example_weights()), z_LK)[1] for z_LK in kept[0]])
    target_BLK = torch.nn.functional.one_hot(slope_BLK.argmin(-1), 3)
    torch.testing.assert_close(lam * gradient_BLK, kept[0] - target_BLK)


def test_imle_does_not_depend_on_the_weight_of_the_cost_in_the_loss():
    """A mean over the batch, a sum and a loss scale give the same direction, example by example; a weight of 0 gives 0.

    The weight reaches the backward pass multiplied into ∇f, where it would otherwise change λ."""
    logits_BLK, cost = example_logits(5), cubic_cost(example_weights())
    _, plain_BLK = run(build("imle", lam=0.3, n_samples=3), logits_BLK, cost)
    for weight_B in (torch.full((5,), 1 / 5), torch.full((5,), -1024.0), torch.tensor([0.0, 1.0, -2.0, 1e-6, 3.0])):
        leaf_BLK = logits_BLK.clone().requires_grad_()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            cost_B = build("imle", lam=0.3, n_samples=3)(leaf_BLK, cost).cost_B
        (gradient_BLK,) = torch.autograd.grad((weight_B.double() * cost_B).sum(), leaf_BLK)
        torch.testing.assert_close(gradient_BLK, weight_B.double()[:, None, None] * plain_BLK)


# All of them.


@pytest.mark.parametrize(("name", "key"), [
    ("gumbel_rao", "tau"), ("gapped_st", "tau"), ("reinmax", "tau"), ("reinmax_rao", "tau"),
    ("decoupled_st_gs", "tau_backward"), ("decoupled_st_gs", "tau_forward"),
])  # fmt: skip
def test_a_learned_temperature_gives_the_same_gradient_of_the_logits(name, key):
    logits_BLK, cost, estimator = example_logits(), cubic_cost(example_weights()), build(name)
    setattr(estimator, key, 1.5)
    expected_BLK = run(estimator, logits_BLK, cost)[1]
    leaf_BLK = logits_BLK.clone().requires_grad_()
    learned = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    setattr(estimator, key, learned)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        estimator(leaf_BLK, cost).cost_B.sum().backward()
    torch.testing.assert_close(leaf_BLK.grad, expected_BLK)
    moves_the_relaxation = (name, key) not in (("reinmax", "tau"), ("decoupled_st_gs", "tau_forward"))
    assert (learned.grad is not None) is moves_the_relaxation
    assert learned.grad is None or (learned.grad.isfinite() and learned.grad != 0)


@pytest.mark.parametrize(("name", "key", "carries"), [
    ("gumbel_rao", "tau", True), ("gapped_st", "tau", True), ("decoupled_st_gs", "tau_backward", True),
    ("straight_through", "tau", True), ("reinmax", "tau", False),
])  # fmt: skip
def test_the_gradient_carries_one_over_tau_except_in_reinmax(name, key, carries):
    """Temperature and learning rate are confounded: where the softmax is flat already, only the factor is left."""
    logits_BLK, cost = example_logits(64), cubic_cost(example_weights())
    small, large = (run(build(name, **{key: tau}), logits_BLK, cost)[1] for tau in (1e4, 1e6))
    ratio = (small.norm() / large.norm()).item()
    assert ratio == pytest.approx(100.0 if carries else 1.0, rel=1e-2)


@pytest.mark.parametrize("name", [*SLOPE, "aimle"])
def test_values_without_gradients_are_the_same(name):
    logits_BLK, cost = example_logits(), cubic_cost(example_weights())
    expected_B, _ = run(make(name), logits_BLK, cost)
    for leaf_BLK, grad in ((logits_BLK, True), (logits_BLK.clone().requires_grad_(), False)):
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(grad):
            torch.manual_seed(0)
            cost_B = make(name)(leaf_BLK, cost).cost_B
        assert torch.equal(cost_B, expected_B)
        assert not cost_B.requires_grad


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns, backward pass included."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("name", [*SLOPE, "aimle"])
def test_no_matrix_of_classes_by_classes_is_built(name):
    n_categories, estimator = 200, make(name)
    largest = LargestTensor()
    with largest:
        run(estimator, example_logits(1, 1, n_categories), cubic_cost(example_weights(1, n_categories)))
    assert largest.size <= getattr(estimator, "n_draws", 1) * n_categories


def test_softmax_slope_is_the_jacobian_of_softmax_at_any_point():
    probs_K, incoming_K = softmax(example_logits(1, 1, 5)[0, 0]), example_weights(1, 5)[0]
    leaf_K = torch.tensor([1.0, -2.0, 30.0, 0.0, 5.0], dtype=torch.float64, requires_grad=True)
    for point_K in (probs_K, onehot(2, 5), (probs_K + onehot(0, 5)) / 2):
        (gradient_K,) = torch.autograd.grad(softmax_slope(point_K, leaf_K), leaf_K, incoming_K)
        torch.testing.assert_close(gradient_K, jacobian(point_K) @ incoming_K, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", [*SLOPE, "aimle"])
def test_masked_classes_get_no_gradient(name):
    """A logit of −∞ is a class that does not exist; ReinMax-Rao, which takes a logarithm, rounds its 0 up to 1e-307."""
    logits_BLK = example_logits(16)
    logits_BLK[..., 1] = -math.inf
    _, gradient_BLK = run(make(name), logits_BLK, cubic_cost(example_weights()))
    assert gradient_BLK.isfinite().all()
    assert gradient_BLK[..., 1].abs().max() < 1e-300
    assert (gradient_BLK != 0).any()
