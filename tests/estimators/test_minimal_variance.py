"""The minimal-variance estimator: its ends, its bias and variance on quadratics, and its numerics."""

import math

import pytest
import torch
from families.minimal_variance import optimal_jacobians
from naive_formulas import jacobian, onehot, softmax

from estimators import build
from estimators.mve import LARGEST_T
from estimators.reference_problem import cubic_cost, example_logits, example_weights, run
from estimators.reinmax import ReinMax
from harness.schedules import Growing


def given(monkeypatch, class_SBL):
    """Let mve and reinmax draw these classes."""
    for module in ("mve", "reinmax", "straight_through"):
        monkeypatch.setattr(f"estimators.{module}.sample_classes", lambda *_: class_SBL)


def by_class(estimator, monkeypatch, logits_BK, cost):
    """Return the gradient (B, X, K) of each problem, a logit row with a cost, at each class x: nothing is sampled.

    `cost` maps codes (B, X, K) to (B, X).
    """
    n_problems, n = logits_BK.shape
    given(monkeypatch, torch.arange(n).repeat(n_problems).view(1, -1, 1))
    rows_BLK = logits_BK.repeat_interleave(n, 0).unsqueeze(1)
    _, gradient_BLK = run(estimator, rows_BLK, lambda z_SBLK: cost(z_SBLK.view(n_problems, n, n)).view(1, -1))
    return gradient_BLK.view(n_problems, n, n)


def moments(logits_BK, gradient_BXK):
    """Mean (B, K) and total variance (B,) over the classes."""
    probs_BX1 = logits_BK.softmax(-1).unsqueeze(-1)
    mean_BK = (probs_BX1 * gradient_BXK).sum(1)
    return mean_BK, (probs_BX1 * (gradient_BXK - mean_BK.unsqueeze(1)) ** 2).sum((1, 2))


def problems(n_problems, n, degree=2, seed=0):
    """Random logit rows, and polynomials of one code of degree 1 or 2, with the true gradients."""
    generator = torch.Generator().manual_seed(seed)
    logits_BK, b_BK = torch.randn(2, n_problems, n, dtype=torch.float64, generator=generator)
    a_BKK = (degree == 2) * torch.randn(n_problems, n, n, dtype=torch.float64, generator=generator)
    p_BK, f_BK = logits_BK.softmax(-1), b_BK + a_BKK.diagonal(dim1=1, dim2=2)
    truth_BK = p_BK * (f_BK - (p_BK * f_BK).sum(-1, keepdim=True))

    def cost(z_BXK):
        return torch.einsum("bxi,bi->bx", z_BXK, b_BK) + torch.einsum("bxi,bij,bxj->bx", z_BXK, a_BKK, z_BXK)

    return logits_BK, cost, truth_BK


def biases(estimator, monkeypatch, *args, **settings):
    logits_BK, cost, truth_BK = problems(*args, **settings)
    mean_BK, _ = moments(logits_BK, by_class(estimator, monkeypatch, logits_BK, cost))
    return (mean_BK - truth_BK).norm(dim=-1) / truth_BK.norm(dim=-1)


# Its ends.


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (3, 5), (2, 1)])
def test_at_zero_it_is_straight_through_sample_by_sample(shape):
    logits_BLK, cost = example_logits(5, *shape), cubic_cost(example_weights(*shape))
    same = [
        run(build(name, **params), logits_BLK, cost, seed=4)
        for name, params in (("mve", {"t": 0, "n_samples": 3}), ("straight_through", {"n_samples": 3}))
    ]
    for one, other in zip(*same, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_at_two_classes_its_limit_is_zgr_sample_by_sample_and_with_more_it_is_another():
    for n, is_same in ((2, True), (3, False)):
        logits_BLK, cost = example_logits(16, 2, n), cubic_cost(example_weights(2, n))
        one, other = (run(build(name, **at), logits_BLK, cost)[1] for name, at in (("mve", {"t": 1e9}), ("zgr", {})))
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-8) is is_same


def test_it_is_the_optimum_that_it_says_it_is():
    """A move that keeps the mean makes the objective larger: what the tests compare with is a minimum, not a saddle."""
    p_K, t = softmax(example_logits(1, 1, 4)[0, 0]), 5.0

    def objective(s_XIK):
        m_IXK = (p_K[:, None, None] * s_XIK).transpose(0, 1)
        bias_IXK = m_IXK + m_IXK.transpose(0, 1)
        bias_IXK = bias_IXK - torch.einsum("ix,ik->ixk", torch.eye(4, dtype=torch.float64), jacobian(p_K))
        return ((p_K[:, None, None] * s_XIK**2).sum() + t / 2 * (bias_IXK**2).sum()).item()

    best_XIK = optimal_jacobians(p_K, t)
    torch.testing.assert_close((p_K[:, None, None] * best_XIK).sum(0), jacobian(p_K))
    for seed in range(20):
        move_XIK = torch.randn(4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        move_XIK -= (p_K[:, None, None] * move_XIK).sum(0)
        assert objective(best_XIK + 1e-3 * move_XIK) > objective(best_XIK)


# Bias and variance.


@pytest.mark.parametrize("t", [0.0, 0.5, 1e3, 1e9])
def test_no_bias_on_linear_costs_at_any_t(monkeypatch, t):
    assert biases(build("mve", t=t), monkeypatch, 20, 6, degree=1).max() < 1e-7


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_bias_on_quadratics_falls_as_one_over_t(monkeypatch, n):
    bias = {t: biases(build("mve", t=t), monkeypatch, 20, n).median().item() for t in (0.0, 1.0, 1e3, 1e4, 1e6)}
    assert bias[0.0] > 0.1
    assert bias[0.0] > bias[1.0] > bias[1e3]
    assert bias[1e3] / bias[1e4] == pytest.approx(10, rel=0.1)
    assert bias[1e6] < 1e-4


def test_bias_on_a_cubic_stays(monkeypatch):
    logits_BK = example_logits(1, 1, 4)[0]
    weights_XK = torch.eye(4, dtype=torch.float64) + example_weights(1, 4)

    def cost(z_BXK):
        return (z_BXK @ weights_XK.T).pow(3).sum(-1)

    p_K, f_X = logits_BK[0].softmax(-1), cost(torch.eye(4, dtype=torch.float64)[None])[0]
    mean_BK, _ = moments(logits_BK, by_class(build("mve"), monkeypatch, logits_BK, cost))
    truth_K = p_K * (f_X - p_K @ f_X)
    assert (mean_BK[0] - truth_K).norm() > 0.02 * truth_K.norm()


def test_on_quadratics_it_varies_less_than_reinmax_more_often_than_not(monkeypatch):
    logits_BK, cost, _ = problems(400, 8)
    ours_B, theirs_B = (
        moments(logits_BK, by_class(estimator, monkeypatch, logits_BK, cost))[1]
        for estimator in (build("mve"), ReinMax())
    )
    ratio_B = ours_B / theirs_B
    assert 0.53 < (ratio_B < 1).double().mean() < 0.67
    assert 0.95 < ratio_B.median() < 1


def test_a_smaller_t_varies_less(monkeypatch):
    logits_BK, cost, _ = problems(100, 8)
    variance = [
        moments(logits_BK, by_class(build("mve", t=t), monkeypatch, logits_BK, cost))[1].median().item()
        for t in (0.0, 1.0, 10.0, 1e6)
    ]
    assert variance == sorted(variance)


def test_no_bias_where_the_cost_is_quadratic_in_each_of_several_latents(monkeypatch):
    """Π_l (1 + w_l·z_l)²: the latents interact. All codes are enumerated."""
    n_latents, n, weights_LK = 2, 3, example_weights()
    class_BL = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    given(monkeypatch, class_BL[None])
    logits_LK = example_logits()[0]

    def cost(z_SBLK):
        return ((1 + (z_SBLK * weights_LK).sum(-1)) ** 2).prod(-1)

    probs_BLK = logits_LK.softmax(-1).expand(len(class_BL), -1, -1)
    prob_B = probs_BLK.gather(-1, class_BL[..., None]).prod(1).squeeze(-1)
    leaf_LK = logits_LK.clone().requires_grad_()
    codes_BLK = torch.nn.functional.one_hot(class_BL, n).double()
    law_B = (leaf_LK.softmax(-1) * codes_BLK).sum(-1).prod(-1)
    (truth_LK,) = torch.autograd.grad((law_B * cost(codes_BLK[None])[0]).sum(), leaf_LK)
    for name, bias in (("mve", 0.0), ("straight_through", 0.1)):
        _, gradient_BLK = run(build(name), logits_LK.expand(n**n_latents, -1, -1), cost)
        error = ((prob_B[:, None, None] * gradient_BLK).sum(0) - truth_LK).norm() / truth_LK.norm()
        assert (error < 1e-4) if bias == 0 else (error > bias)


# Numerics.


@pytest.mark.parametrize("t", [1.0, 1e6, LARGEST_T])
def test_the_mean_jacobian_stays_that_of_softmax_where_probabilities_underflow(monkeypatch, t):
    """Σ_x π_x S(x)ᵀ g = J g to ten digits, from the solves alone."""
    logits_BK = torch.tensor([[0, -20, -40, -700, -1e4], [0, 0, -1e-9, -30, -14], [5, 5, 5, 5, 5.0]]).double()
    slope_K = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0], dtype=torch.float64)
    gradient_BXK = by_class(build("mve", t=t), monkeypatch, logits_BK, lambda z_BXK: z_BXK @ slope_K)
    mean_BK, _ = moments(logits_BK, gradient_BXK)
    expected_BK = torch.stack([jacobian(p_K) @ slope_K for p_K in logits_BK.softmax(-1)])
    assert (mean_BK - expected_BK).abs().max() < 1e-7 * expected_BK.abs().max()
    assert gradient_BXK.isfinite().all()


def test_a_thousand_classes(monkeypatch):
    logits_BK = 3 * torch.randn(1, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chosen_B = logits_BK[0].topk(4).indices
    given(monkeypatch, chosen_B.view(1, -1, 1))
    slope_K = torch.arange(1000).double().sin()
    _, gradient_BLK = run(build("mve"), logits_BK.expand(4, 1, -1), lambda z_SBLK: (z_SBLK @ slope_K).sum(-1))
    assert gradient_BLK.isfinite().all()
    assert gradient_BLK.sum(-1).abs().max() < 1e-12
    assert (gradient_BLK.abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("t", [0.0, 1.0, 1e6])
def test_masked_classes_get_no_gradient_and_change_nothing(monkeypatch, t):
    logits_BLK, weights_LK = example_logits(16, 2, 3), example_weights(2, 4)
    masked_BLK = torch.cat([logits_BLK, torch.full((16, 2, 1), -math.inf, dtype=torch.float64)], -1)
    given(monkeypatch, torch.arange(32).view(1, 16, 2) % 3)
    _, plain_BLK = run(build("mve", t=t), logits_BLK, cubic_cost(weights_LK[:, :3]))
    _, gradient_BLK = run(build("mve", t=t), masked_BLK, cubic_cost(weights_LK))
    assert (gradient_BLK[..., 3] == 0).all()
    torch.testing.assert_close(gradient_BLK[..., :3], plain_BLK, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_narrow_logits_are_solved_in_float64(monkeypatch, dtype):
    logits_BLK, weights_LK = example_logits(16).to(dtype), example_weights().to(dtype)
    given(monkeypatch, torch.arange(32).view(1, 16, 2) % 3)
    gradient_BLK, precise_BLK = (
        run(build("mve"), logits_BLK.to(each), lambda z_SBLK: (z_SBLK * weights_LK.to(z_SBLK.dtype)).sum((-1, -2)))[1]
        for each in (dtype, torch.float64)
    )
    assert gradient_BLK.dtype == dtype
    torch.testing.assert_close(gradient_BLK, precise_BLK.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


def test_t_as_a_tensor_gives_the_same_gradient():
    logits_BLK, cost, estimator = example_logits(), cubic_cost(example_weights()), build("mve", t=7.0)
    expected_BLK = run(estimator, logits_BLK, cost)[1]
    estimator.t = torch.tensor(7.0, dtype=torch.float64)
    torch.testing.assert_close(run(estimator, logits_BLK, cost)[1], expected_BLK, rtol=0, atol=0)


def test_it_compiles_in_one_graph():
    logits_BLK, cost, estimator = example_logits(), cubic_cost(example_weights()), build("mve", n_samples=2)

    def gradient(call):
        leaf_BLK = logits_BLK.clone().requires_grad_()
        torch.manual_seed(0)
        return torch.autograd.grad(call(leaf_BLK).sum(), leaf_BLK)[0]

    with torch.random.fork_rng(devices=[]):
        compiled = torch.compile(lambda x_BLK: estimator(x_BLK, cost).cost_B, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(gradient(compiled), gradient(lambda x_BLK: estimator(x_BLK, cost).cost_B))


def test_a_temperature_is_refused_where_it_is_set():
    estimator = build("mve")
    assert estimator.temperatures == Growing.sets == ("t",)
    assert not estimator.uses_tau
    with pytest.raises(ValueError, match=r"^mve: expected 0 <= t <= 1e\+09, got -2\.$"):
        estimator.t = -2
    with pytest.raises(ValueError, match=r"^mve: expected no tau, got 1\.0\."):
        estimator.tau = 1.0
    with pytest.raises(ValueError, match=r"^mve: expected t without a gradient, got tensor\(3\.,"):
        estimator.t = torch.tensor(3.0, requires_grad=True)
    estimator.t = torch.tensor(3.0)


def test_one_class_has_no_gradient():
    _, gradient_BLK = run(build("mve"), torch.zeros(2, 3, 1), lambda z_SBLK: (z_SBLK**2).sum((-1, -2)))
    assert (gradient_BLK == 0).all()
    assert torch.equal(onehot(0, 1), torch.ones(1, dtype=torch.float64))
