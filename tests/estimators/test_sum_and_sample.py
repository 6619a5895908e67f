"""Sum and sample: its limits are reinforce and indecater; the law of the sample of the rest; means, variance, masks.

L=2, K=3, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry, unless
stated otherwise. Seeds and numbers of draws are fixed beforehand.
"""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from estimators import build, draw_codes
from estimators.base import CODES_PER_CALL
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
from estimators.sum_and_sample import _draw_classes

P_VALUE = 1e-6
PEAKED = 3.0


def problem(shape, scale=1.0):
    return scale * example_logits(1, *shape).expand(N_REPLICAS, -1, -1), cubic_cost(example_weights(*shape))


def cost_of_variance(name, shape, scale, **params):
    """The variance of one draw times its evaluations."""
    estimator = build(name, **params)
    return run(estimator, *problem(shape, scale))[1].var(0).sum().item() * estimator.n_cost_evals(*shape)


# Identities.


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (2, 3), (3, 6)])
def test_with_all_classes_summed_it_is_indecater_draw_by_draw(shape, n_samples):
    """The last class is then certain, so one fewer is enough: as many evaluations too."""
    logits_BLK, cost = example_logits(20, *shape), cubic_cost(example_weights(*shape))
    other = build("indecater", n_samples=n_samples)
    expected = run(other, logits_BLK, cost, seed=3)
    for n_summed in (shape[1] - 1, shape[1], 50):
        estimator = build("sum_and_sample", n_summed=n_summed, n_samples=n_samples)
        torch.testing.assert_close(run(estimator, logits_BLK, cost, seed=3), expected)
        assert estimator.n_cost_evals(*shape) == other.n_cost_evals(*shape)


@pytest.mark.parametrize("n_samples", [1, 3])
def test_with_no_class_summed_it_is_reinforce_draw_by_draw(n_samples):
    logits_BLK, cost = example_logits(20, 3, 6), cubic_cost(example_weights(3, 6))
    estimator = build("sum_and_sample", n_summed=0, n_samples=n_samples)
    expected = run(build("reinforce", n_samples=n_samples), logits_BLK, cost, seed=3)
    torch.testing.assert_close(run(estimator, logits_BLK, cost, seed=3), expected)
    assert estimator.n_cost_evals(3, 6) == n_samples


# The mean, and what is drawn.


@pytest.mark.parametrize("n_summed", [0, 1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 4), (3, 2), (2, 5)])
def test_unbiased_at_other_shapes_and_sizes(shape, n_summed):
    for scale in (1.0, PEAKED):
        rows_NLK, cost = problem(shape, scale)
        expected, gradient_LK = exact_gradient(rows_NLK[0], cost)
        cost_N, gradient_NLK = run(build("sum_and_sample", n_summed=n_summed), rows_NLK, cost, seed=1)
        assert z_scores(cost_N, expected).abs() < MAX_Z
        assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


def test_the_sample_of_the_rest_has_its_law_whatever_is_drawn():
    """π given the rest, where the drawn class is one of the rest (then it is the same) and where it is a summed one."""
    logits_K = torch.tensor([0.3, -1.1, 1.2, -0.2, -0.4], dtype=torch.float64)
    torch.manual_seed(5)
    classes = _draw_classes(logits_K.expand(N_REPLICAS, 1, -1), 2, 1)
    assert (classes.summed_BLM == torch.tensor([2, 0])).all()
    drawn_N, rest_N = classes.drawn_SBL.flatten(), classes.rest_SBL.flatten()
    is_summed_N = (drawn_N == 2) | (drawn_N == 0)
    assert torch.equal(drawn_N[~is_summed_N], rest_N[~is_summed_N])
    probs = logits_K[[1, 3, 4]].softmax(-1).tolist()
    for chosen_N in (rest_N[drawn_N == 2], rest_N[drawn_N == 0], rest_N[~is_summed_N]):
        counts = torch.bincount(chosen_N, minlength=5)[[1, 3, 4]].tolist()
        assert sum(counts) == len(chosen_N) > 1000
        assert stats.chisquare(counts, [p * len(chosen_N) for p in probs]).pvalue > P_VALUE


def test_no_code_is_evaluated_twice():
    """Each latent has the drawn class, the summed ones and one of the rest: m + 1 different ones."""
    seen = []
    logits_BLK, cost = example_logits(30, 2, 6).requires_grad_(), cubic_cost(example_weights(2, 6))
    build("sum_and_sample", n_summed=2)(logits_BLK, lambda z: (seen.append(z.detach()), cost(z))[1])
    class_RBL = torch.cat(seen).argmax(-1)
    assert len(class_RBL) == 5
    for b in range(30):
        assert len({tuple(row) for row in class_RBL[:, b].tolist()}) == 5


def test_one_latent_and_two_classes_are_exact():
    logits_BLK, cost = example_logits(4, 1, 2), cubic_cost(example_weights(1, 2))
    expected = torch.stack([exact_gradient(logits_LK, cost)[1] for logits_LK in logits_BLK])
    torch.testing.assert_close(run(build("sum_and_sample", n_summed=1), logits_BLK, cost)[1], expected)


# Variance.


def test_a_constant_changes_nothing_once_a_class_is_summed():
    logits_BLK, cost = example_logits(16), cubic_cost(example_weights())
    for n_summed in (1, 2):
        estimator = build("sum_and_sample", n_summed=n_summed)
        plain, shifted = (run(estimator, logits_BLK, lambda z, c=c: cost(z) + c)[1] for c in (0.0, 1000.0))
        torch.testing.assert_close(plain, shifted, rtol=1e-8, atol=1e-9)


def test_more_summed_classes_vary_less():
    variance = [
        run(build("sum_and_sample", n_summed=m), *problem((2, 6)))[1].var(0).sum().item() for m in (0, 1, 2, 3, 5)
    ]
    assert all(after < 0.8 * before for before, after in pairwise(variance))


@pytest.mark.parametrize("name", ["rloo", "carms", "indecater", "unordered_set"])
def test_with_peaked_laws_it_varies_least_for_its_evaluations(name):
    ours = cost_of_variance("sum_and_sample", (2, 8), PEAKED)
    assert ours < 0.8 * cost_of_variance(name, (2, 8), PEAKED)


# Masked classes, memory, precision.


@pytest.mark.parametrize("n_summed", [0, 1, 2, 3])
@pytest.mark.parametrize("masked", [[0], [0, 1], [0, 2, 3], [1, 2, 3]])
def test_masked_classes_are_never_evaluated_and_get_no_gradient(masked, n_summed):
    """Not even where fewer classes are left than are to be summed, or none to be sampled."""
    rows_NLK, cost = problem((2, 4))
    rows_NLK = rows_NLK.clone()
    rows_NLK[:, 0, masked] = -math.inf
    seen = []
    estimator = build("sum_and_sample", n_summed=n_summed)
    _, gradient_NLK = run(estimator, rows_NLK, lambda z: (seen.append(z.detach()), cost(z))[1])
    assert all((z_SNLK[..., 0, masked] == 0).all() for z_SNLK in seen)
    assert (gradient_NLK[:, 0, masked] == 0).all()
    assert gradient_NLK.isfinite().all()
    assert z_scores(gradient_NLK, exact_gradient(rows_NLK[0], cost)[1]).abs().max() < MAX_Z


def test_the_codes_are_evaluated_in_chunks():
    sizes = []

    def cost(z_SBLK):
        sizes.append(z_SBLK.shape[:2].numel())
        return z_SBLK[..., 0].sum(-1)

    estimator = build("sum_and_sample", n_samples=2)
    estimator(torch.randn(128, 30, 10, requires_grad=True), cost)
    assert len(sizes) > 2
    assert max(sizes) <= CODES_PER_CALL
    assert sum(sizes) == 128 * estimator.n_cost_evals(30, 10)


def test_a_thousand_classes_in_half_precision():
    logits_BLK = 5 * example_logits(2, 3, 1000)
    cost = cubic_cost(example_weights(3, 1000))
    expected = run(build("sum_and_sample"), logits_BLK.bfloat16().float(), cost)[1]
    found = run(build("sum_and_sample"), logits_BLK.bfloat16(), cost)[1]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_without_a_gradient_to_give_only_the_samples_are_evaluated():
    seen = []
    cost = cubic_cost(example_weights())
    build("sum_and_sample", n_samples=2)(example_logits(), lambda z: (seen.append(len(z)), cost(z))[1])
    assert seen == [2]


@pytest.mark.parametrize("n_summed", [0, 1, 2])
def test_costs_that_come_later_give_the_same_estimate(n_summed):
    logits_BLK, cost = example_logits().requires_grad_(), cubic_cost(example_weights())
    estimator = build("sum_and_sample", n_summed=n_summed, n_samples=2)
    expected_B, gradient_BLK = run(estimator, logits_BLK, cost)
    torch.manual_seed(0)
    draw = draw_codes(logits_BLK, estimator)
    loss_B = draw.loss(cost(draw.z))
    torch.testing.assert_close(loss_B.detach(), expected_B)
    torch.testing.assert_close(torch.autograd.grad(loss_B.sum(), logits_BLK)[0], gradient_BLK)
