"""CARMS and double control variates: joint laws, identities, means of control variates, variance, what is learned.

L=2, K=3, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry, unless
stated otherwise. Seeds and numbers of draws are fixed beforehand.
"""

import math
from itertools import product

import pytest
import torch
from families.carms_and_double_cv import copula, joint_probability
from scipy import stats

from estimators import build
from estimators.carms import _pair_weights, _places, _questions
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)

P_VALUE = 1e-6
BUILT = {"carms": {}, "double_cv": {"eta": 1.0}}
SHAPES = [(1, 2), (3, 2), (2, 3), (2, 5), (1, 9)]


def problem(shape):
    return example_logits(1, *shape).expand(N_REPLICAS, -1, -1), cubic_cost(example_weights(*shape))


def total_variance(estimator, shape, scale=1.0):
    rows_NLK, cost = problem(shape)
    return run(estimator, scale * rows_NLK, cost)[1].var(0).sum().item()


@pytest.mark.parametrize("n_samples", [2, 3, 8])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["carms", "double_cv"])
def test_unbiased_at_other_shapes_and_sizes(name, shape, n_samples):
    rows_NLK, cost = problem(shape)
    for scale in (1.0, 3.0):
        expected, gradient_LK = exact_gradient(scale * rows_NLK[0], cost)
        cost_N, gradient_NLK = run(build(name, n_samples=n_samples, **BUILT[name]), scale * rows_NLK, cost, seed=1)
        assert z_scores(cost_N, expected).abs() < MAX_Z
        assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


# CARMS: the coupled codes.


def coupled_classes(logits_K, n_samples):
    """N_REPLICAS sets of n coupled classes of one latent, (S, N)."""
    torch.manual_seed(5)
    log_yes_BLI, order_BLK = _questions(logits_K.expand(N_REPLICAS, 1, -1))
    place_SBL = _places(log_yes_BLI, n_samples)
    return order_BLK.expand(n_samples, -1, -1, -1).gather(-1, place_SBL[..., None])[..., 0, 0]


@pytest.mark.parametrize("n_samples", [2, 3, 4, 9])
def test_pairs_have_the_joint_law_that_the_weights_assume(n_samples):
    """Chi-squared test over all pairs of classes; equal classes get what is left of each class's probability."""
    logits_K = torch.tensor([0.3, -1.1, 1.2, -0.2], dtype=torch.float64)
    probs = logits_K.softmax(-1).tolist()
    joint = [[joint_probability(probs, c, d, n_samples) if c != d else 0.0 for d in range(4)] for c in range(4)]
    for c in range(4):
        joint[c][c] = probs[c] - sum(joint[c])
        assert joint[c][c] >= -1e-12
    first_N, *_, last_N = coupled_classes(logits_K, n_samples)
    observed = torch.bincount(4 * first_N + last_N, minlength=16).tolist()
    expected = [N_REPLICAS * joint[c][d] for c, d in product(range(4), repeat=2)]
    possible = [(o, e) for o, e in zip(observed, expected, strict=True) if e > 1e-6]
    assert sum(o for o, _ in possible) == N_REPLICAS
    assert stats.chisquare(*zip(*possible, strict=True)).pvalue > P_VALUE


@pytest.mark.parametrize("n_samples", [2, 3, 6])
def test_the_weights_are_the_ratios_of_the_joint_law(n_samples):
    logits_BLK = example_logits(1, 1, 5)
    probs = logits_BLK[0, 0].softmax(-1).tolist()
    log_yes_BLI, order_BLK = _questions(logits_BLK)
    for a, b in product(range(5), repeat=2):
        place_SBL = torch.tensor([a, b]).view(2, 1, 1)
        weight = _pair_weights(log_yes_BLI, place_SBL, n_samples)[0, 1].item()
        c, d = order_BLK[0, 0, a].item(), order_BLK[0, 0, b].item()
        expected = probs[c] * probs[d] / joint_probability(probs, c, d, n_samples) if c != d else 0.0
        assert weight == pytest.approx(expected)


@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_the_uniforms_are_uniform_and_have_the_copula(n_samples):
    """One question with p = .3: how often one, and two, of the codes say yes."""
    p = 0.3
    logits_K = torch.tensor([p, 1 - p], dtype=torch.float64).log()
    yes_SN = coupled_classes(logits_K, n_samples) == 0
    for share, expected in ((yes_SN[0], p), (yes_SN[0] & yes_SN[-1], copula(p, n_samples))):
        error = math.sqrt(expected * (1 - expected) / N_REPLICAS)
        assert abs(share.double().mean().item() - expected) <= MAX_Z * error


def test_coupled_codes_differ_more_often_than_independent_ones():
    logits_K = torch.tensor([0.3, -1.1, 1.2, -0.2], dtype=torch.float64)
    independent = logits_K.softmax(-1).square().sum().item()
    equal = [(coupled_classes(logits_K, n)[0] == coupled_classes(logits_K, n)[1]).double().mean() for n in (2, 4, 16)]
    assert equal[0] < equal[1] < equal[2] < independent


def test_two_codes_of_two_classes_are_disarm():
    """One latent: the same uniforms give the same pair and the same gradient. Its weight is σ(|φ|)."""
    logits_BLK, cost = example_logits(200, 1, 2), cubic_cost(example_weights(1, 2))
    one, other = run(build("carms", n_samples=2), logits_BLK, cost), run(build("disarm"), logits_BLK, cost)
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])
    log_yes_BLI, _ = _questions(logits_BLK)
    place_SBL = torch.tensor([0, 1]).view(2, 1, 1).expand(-1, 200, 1)
    weight_B = _pair_weights(log_yes_BLI, place_SBL, 2)[0, 1, :, 0]
    torch.testing.assert_close(weight_B, (logits_BLK[:, 0, 1] - logits_BLK[:, 0, 0]).abs().sigmoid())


@pytest.mark.parametrize(("shape", "most"), [((3, 2), 0.7), ((2, 3), 0.8), ((2, 6), 0.92), ((5, 10), 0.99)])
def test_carms_varies_less_than_rloo_at_equal_cost(shape, most):
    ratio = total_variance(build("carms", n_samples=4), shape) / total_variance(build("rloo", n_samples=4), shape)
    assert ratio < most


@pytest.mark.parametrize("n_samples", [3, 24])
def test_the_gain_over_rloo_stays_with_many_codes(n_samples):
    """Two of many codes are nearly independent, but there are n(n − 1) pairs."""
    carms, rloo = (total_variance(build(name, n_samples=n_samples), (2, 3)) for name in ("carms", "rloo"))
    assert carms < 0.8 * rloo


def test_a_constant_changes_nothing():
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    for name in ("carms", "double_cv"):
        plain, shifted = (
            run(build(name, **BUILT[name]), logits_BLK, lambda z, c=c: cost(z) + c)[1] for c in (0.0, 1000.0)
        )
        torch.testing.assert_close(plain, shifted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["carms", "double_cv"])
def test_masked_classes_are_never_sampled_and_get_no_gradient(name):
    for masked in range(3):
        rows_NLK, cost = problem((2, 3))
        rows_NLK = rows_NLK.clone()
        rows_NLK[:, 0, masked] = -math.inf
        seen = []
        _, gradient_NLK = run(build(name, **BUILT[name]), rows_NLK, lambda z: (seen.append(z.detach()), cost(z))[1])  # noqa: B023
        assert (seen[0][..., 0, masked] == 0).all()
        assert (gradient_NLK[:, 0, masked] == 0).all()
        assert gradient_NLK.isfinite().all()
        assert z_scores(gradient_NLK, exact_gradient(rows_NLK[0], cost)[1]).abs().max() < MAX_Z


# Double control variates.


def test_without_its_weight_it_is_rloo_sample_by_sample():
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    for n_samples in (2, 5):
        one = run(build("double_cv", n_samples=n_samples), logits_BLK, cost)
        other = run(build("rloo", n_samples=n_samples), logits_BLK, cost)
        torch.testing.assert_close(one[0], other[0])
        torch.testing.assert_close(one[1], other[1])


def test_a_linear_cost_gives_the_exact_gradient_in_a_single_draw():
    weights_LK = example_weights()

    def cost(z_SBLK):
        return (z_SBLK * weights_LK.to(z_SBLK.dtype)).sum((-1, -2)) + 7

    logits_BLK = example_logits(5)
    _, gradient_BLK = run(build("double_cv", eta=1.0, n_samples=2), logits_BLK, cost)
    for gradient_LK, logits_LK in zip(gradient_BLK, logits_BLK, strict=True):
        torch.testing.assert_close(gradient_LK, exact_gradient(logits_LK, cost)[1])


def test_the_control_variate_has_mean_zero_and_is_proportional_to_eta():
    rows_NLK, cost = problem((2, 3))
    plain, once, twice = (run(build("double_cv", eta=eta), rows_NLK, cost)[1] for eta in (0.0, 1.0, 2.0))
    torch.testing.assert_close(twice - plain, 2 * (once - plain))
    assert z_scores(once - plain, torch.zeros(2, 3)).abs().max() < MAX_Z
    assert (once - plain).std() > 0.1 * plain.std()


@pytest.mark.parametrize(("shape", "most"), [((2, 3), 0.9), ((6, 2), 0.65), ((5, 10), 0.65)])
def test_double_cv_varies_less_than_rloo(shape, most):
    ratio = total_variance(build("double_cv", eta=1.0), shape) / total_variance(build("rloo", n_samples=4), shape)
    assert ratio < most


def test_two_variates_vary_less_than_one():
    from families.carms_and_double_cv import TaylorSingle

    assert total_variance(build("double_cv", eta=1.0), (5, 10)) < 0.9 * total_variance(TaylorSingle(), (5, 10))


def test_eta_learns_the_weight_of_least_variance():
    """The variance is a parabola in eta; Adam finds its bottom from either side."""
    rows_NLK, cost = problem((2, 3))
    variance = {eta: total_variance(build("double_cv", eta=eta), (2, 3)) for eta in (0.0, 1.0, 2.0)}
    curvature = variance[0.0] - 2 * variance[1.0] + variance[2.0]
    best = 1.0 - (variance[2.0] - variance[0.0]) / (2 * curvature)
    for start in (0.0, 2.0):
        estimator = build("double_cv", eta=start, control_lr=0.03)
        optimizer = estimator.control_optimizer()
        torch.manual_seed(1)
        for _ in range(200):
            logits_BLK = rows_NLK[:1000].clone().requires_grad_()
            control_loss = estimator(logits_BLK, cost).control_loss
            optimizer.zero_grad()
            torch.autograd.backward(control_loss, inputs=list(estimator.parameters()))
            optimizer.step()
        assert estimator.eta.item() == pytest.approx(best, abs=0.1)
        assert repr(estimator) == f"DoubleCV(eta={estimator.eta.item():g}, n_samples=4, control_lr=0.03)"


def test_control_loss_is_the_mean_square_of_the_gradient_and_trains_eta_alone():
    logits_BLK, weights_LK = example_logits().requires_grad_(), example_weights().requires_grad_()
    estimator = build("double_cv", eta=1.0)
    torch.manual_seed(0)
    estimate = estimator(logits_BLK, cubic_cost(weights_LK))
    (gradient_BLK,) = torch.autograd.grad(estimate.cost_B.sum(), logits_BLK, retain_graph=True)
    assert estimate.control_loss.item() == pytest.approx(gradient_BLK.square().sum().item() / 4)
    others = torch.autograd.grad(
        estimate.control_loss, [logits_BLK, weights_LK, estimator.eta], allow_unused=True, retain_graph=True
    )
    assert others[0] is None
    assert others[1] is None
    assert others[2] != 0
    assert estimator.eval()(logits_BLK, cubic_cost(weights_LK)).control_loss is None


@pytest.mark.parametrize("name", ["carms", "double_cv"])
def test_without_a_gradient_to_give_the_cost_is_still_right(name):
    logits_BLK, cost = example_logits(), cubic_cost(example_weights())
    expected_B = run(build(name), logits_BLK, cost)[0]
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            torch.manual_seed(0)
            assert torch.equal(build(name)(logits_BLK, cost).cost_B.detach(), expected_B)
