"""ReDGE: the law of its codes, which is not quite softmax(θ), its limits, its slope by finite differences, numerics."""

import math

import pytest
import torch
from families.redge import schedule
from means_by_definition import diffusion, quadrature
from scipy import stats

from estimators import build
from estimators.redge import alphas, last_logits
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    cost_for,
    cubic_cost,
    example_logits,
    example_weights,
    logits_for,
    run,
    z_scores,
)

BOTH = ["redge", "redge_soft"]


def codes(estimator, logits_LK, n=N_REPLICAS, seed=0):
    """Return n codes (n, L, K) of one row of logits."""
    kept = []
    run(estimator, logits_LK.expand(n, -1, -1), lambda z: (kept.append(z[0].detach()), z.sum((-1, -2)))[1], seed)
    return kept[0]


# The schedule.


@pytest.mark.parametrize(("n_steps", "t_1"), [(2, 0.5), (2, 1.0), (3, 0.3), (5, 0.5), (9, 0.9), (4, 1.0)])
def test_the_schedule_is_a_line_to_nearly_pure_noise(n_steps, t_1):
    assert alphas(n_steps, t_1) == pytest.approx(schedule(n_steps, t_1)[1:], abs=1e-12)
    assert len(alphas(n_steps, t_1)) == n_steps - 1


# Limits.


@pytest.mark.parametrize("n_steps", [2, 5])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (1, 5)])
def test_at_one_it_is_straight_through_sample_by_sample(n_steps, shape):
    logits_BLK, cost = example_logits(5, *shape), cubic_cost(example_weights(*shape))
    ours = run(build("redge", t_1=1.0, n_steps=n_steps, n_samples=3), logits_BLK, cost, seed=4)
    theirs = run(build("straight_through", n_samples=3), logits_BLK, cost, seed=4)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    below = run(build("redge", t_1=0.5, n_samples=3), logits_BLK, cost, seed=4)
    assert not torch.allclose(below[1], theirs[1], rtol=0.01)


def test_at_one_the_soft_form_is_the_softmax_without_noise():
    logits_BLK, cost = example_logits(), cubic_cost(example_weights())
    ours, theirs = run(build("redge_soft", t_1=1.0), logits_BLK, cost), run(build("softmax"), logits_BLK, cost)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_soft_codes_approach_one_hot_as_t_1_falls():
    largest = [codes(build("redge_soft", t_1=t_1), example_logits()[0]).amax(-1).mean() for t_1 in (1, 0.7, 0.4, 0.1)]
    assert largest == sorted(largest)
    assert largest[-1] > 0.97


# The law of the codes. 1/2 Σ_k |P(k) − π_k|, P by quadrature at two classes, by 4e5 soft codes at ten.


def distance_at_two_classes(n_steps, t_1, phi):
    x_Q, weight_Q = quadrature(stats.norm(scale=math.sqrt(2)), [-1.0, -0.5, 0.0, 0.5, 1.0])
    p_Q, _ = diffusion(build("redge", n_steps=n_steps, t_1=t_1), torch.tensor(phi), x_Q)
    return abs((weight_Q * p_Q).sum().item() - 1 / (1 + math.exp(-phi)))


@pytest.mark.parametrize(
    ("n_steps", "t_1", "low", "high"),
    [
        (2, 0.5, 0.08, 0.16),
        (3, 0.5, 5e-3, 0.016),
        (3, 0.3, 0.05, 0.1),
        (5, 0.1, 0.03, 0.06),
        (5, 0.3, 0.015, 0.03),
        (5, 0.5, 1e-3, 6e-3),
        (9, 0.5, 5e-4, 3e-3),
        (5, 0.9, 0.0, 1e-4),
        (2, 1.0, 0.0, 1e-9),
        (5, 1.0, 0.0, 1e-9),
    ],
)
def test_distance_of_the_law_at_two_classes(n_steps, t_1, low, high):
    """The largest over differences of the logits."""
    assert low <= max(distance_at_two_classes(n_steps, t_1, phi / 4) for phi in range(-24, 25)) < high


def test_more_steps_bring_the_law_to_softmax_at_any_t_1():
    for t_1 in (0.1, 0.3, 0.5):
        distances = [distance_at_two_classes(n_steps, t_1, 1.0) for n_steps in (3, 9, 33, 300)]
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < 2e-3


@pytest.mark.parametrize(("n_steps", "t_1", "expected"), [(2, 0.5, 0.19), (5, 0.3, 0.027), (5, 0.5, 0.003)])
def test_distance_of_the_law_is_that_of_the_docstring(n_steps, t_1, expected):
    torch.manual_seed(0)
    logits_BLK, total_BLK = 3 * torch.randn(16, 1, 10), 0.0
    for _ in range(5):
        total_BLK = total_BLK + last_logits(logits_BLK, 5000, n_steps, t_1).softmax(-1).mean(0) / 5
    distance = ((total_BLK - logits_BLK.softmax(-1)).abs().sum(-1) / 2).mean().item()
    assert distance == pytest.approx(expected, rel=0.25, abs=1e-3)


@pytest.mark.parametrize("params", [{}, {"n_steps": 2, "t_1": 0.4}])
def test_a_code_is_a_sample_of_its_soft_code(params):
    """Their means are the same; at few steps neither is softmax(θ)."""
    logits_LK = 2 * example_logits()[0]
    hard_NLK, soft_NLK = (codes(build(name, **params), logits_LK, seed=3) for name in BOTH)
    assert z_scores(hard_NLK, soft_NLK.mean(0)).abs().max() < MAX_Z * math.sqrt(2)
    is_far = z_scores(soft_NLK, logits_LK.softmax(-1)).abs().max() > MAX_Z
    assert is_far == (params != {})


# The slope.


def test_soft_slope_is_the_derivative_for_fixed_noise():
    estimator, logits_BLK = build("redge_soft"), example_logits(2)

    def soft(leaf_BLK):
        torch.manual_seed(1)
        return estimator.sample(leaf_BLK)

    with torch.random.fork_rng(devices=[]):
        assert torch.autograd.gradcheck(soft, logits_BLK.clone().requires_grad_())


@pytest.mark.parametrize("name", BOTH)
def test_a_smaller_t_1_varies_more(name):
    variance = [
        run(build(name, t_1=t_1), example_logits()[0].expand(4000, -1, -1), cubic_cost(example_weights()))[1]
        .var(0)
        .sum()
        .item()
        for t_1 in (1.0, 0.7, 0.5, 0.3)
    ]
    assert variance == sorted(variance)


# Numerics.


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("params", [{}, {"t_1": 0.01}, {"t_1": 1.0}])
def test_masked_classes_have_no_mass_and_no_gradient(name, params):
    logits_BLK = torch.cat([example_logits(64, 2, 3), torch.full((64, 2, 1), -math.inf, dtype=torch.float64)], -1)
    kept, cost = [], cubic_cost(example_weights(2, 4))
    _, gradient_BLK = run(build(name, **params), logits_BLK, lambda z: (kept.append(z.detach()), cost(z))[1])
    assert (kept[0][..., 3] == 0).all()
    assert kept[0].isfinite().all()
    assert gradient_BLK.isfinite().all()
    assert (gradient_BLK[..., 3] == 0).all()


@pytest.mark.parametrize("name", BOTH)
def test_a_masked_class_leaves_the_law_of_the_others_as_it_was(name):
    """The masked class adds noise of its own to x, and nothing to the denoised code."""
    logits_LK = example_logits()[0]
    masked_LK = torch.cat([logits_LK, torch.full((2, 1), -math.inf, dtype=torch.float64)], -1)
    plain_NLK, kept_NLK = codes(build(name), logits_LK), codes(build(name), masked_LK, seed=1)[..., :3]
    assert z_scores(kept_NLK - plain_NLK, torch.zeros(2, 3)).abs().max() < MAX_Z


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_narrow_logits_are_diffused_in_float32(name, dtype):
    estimator, logits_BLK = build(name, n_samples=2), example_logits(16).to(dtype)
    weights_LK = example_weights().float()
    narrow, wide = (
        run(estimator, logits_BLK.to(each), lambda z: (z.float() * weights_LK).sum((-1, -2)))
        for each in (dtype, torch.float32)
    )
    tolerance = 4 * torch.finfo(dtype).eps
    assert narrow[1].dtype == dtype
    torch.testing.assert_close(narrow[0], wide[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(narrow[1].float(), wide[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("shape", [(2, 1000), (3, 2), (2, 1)])
def test_any_number_of_classes(name, shape):
    logits_BLK = 3 * example_logits(4, *shape)
    weights_LK = 10 * example_weights(*shape)
    _, gradient_BLK = run(build(name), logits_BLK, lambda z: (z * weights_LK).sum((-1, -2)))
    assert gradient_BLK.isfinite().all()
    assert gradient_BLK.sum(-1).abs().max() < 1e-12
    assert (gradient_BLK.abs().amax() > 1e-3) == (shape[-1] > 1)


@pytest.mark.parametrize("name", BOTH)
def test_it_compiles_in_one_graph(name):
    estimator, logits_BLK = build(name, n_samples=2), example_logits()
    cost = cost_for(estimator)

    def gradient(call):
        leaf_BLK = logits_BLK.clone().requires_grad_()
        torch.manual_seed(0)
        return torch.autograd.grad(call(leaf_BLK).sum(), leaf_BLK)[0]

    with torch.random.fork_rng(devices=[]):
        compiled = torch.compile(lambda x_BLK: estimator(x_BLK, cost).cost_B, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(gradient(compiled), gradient(lambda x_BLK: estimator(x_BLK, cost).cost_B))


def test_an_empty_batch_has_an_empty_gradient():
    for name in BOTH:
        assert run(build(name), logits_for(build(name))[:0], cost_for(build(name)))[1].shape == (0, 2, 3)
