"""Baselines, VIMCO and IndeCateR: unbiased whatever their state, state that moves when it should, and less variance."""

import copy

import pytest
import torch
from families.score_function import NAIVE, NvilWithState

from estimators import build, draw_codes, expect
from estimators.base import CODES_PER_CALL
from estimators.conformance.declaration import check_declaration
from estimators.conformance.gradient import check_bias
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    bias_scores,
    call,
    cubic_cost,
    exact_bound_gradient,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)

COST = cubic_cost(example_weights())
ROWS_NLK = example_logits()[0].expand(N_REPLICAS, -1, -1)


def offset_cost(z_SBLK):
    return COST(z_SBLK) + 20


def total_variance(estimator, cost=COST):
    return run(estimator.eval(), ROWS_NLK, cost)[1].var(0).sum().item()


# Running means.


@pytest.mark.parametrize("name", ["reinforce_ema", "nvil"])
def test_state_moves_in_training_mode_only_and_after_it_was_used(name):
    estimator = build(name, n_samples=2)
    before = copy.deepcopy(estimator.state_dict())
    estimator.eval()(example_logits().requires_grad_(), COST)
    assert all(torch.equal(before[key], value) for key, value in estimator.state_dict().items())
    torch.manual_seed(0)
    first = estimator.train()(example_logits().requires_grad_(), COST)
    leaf = example_logits().requires_grad_()
    torch.manual_seed(0)
    plain = build("reinforce", n_samples=2)(leaf, COST)
    assert torch.equal(first.cost_B, plain.cost_B)
    assert estimator.mean.value().item() == pytest.approx(plain.cost_B.mean().item(), rel=1e-6)


def test_the_first_baseline_is_zero_and_the_second_the_first_mean():
    estimator = build("reinforce_ema")
    logits = example_logits()
    first = run(estimator, logits, COST, seed=1)[1]
    torch.testing.assert_close(first, run(build("reinforce"), logits, COST, seed=1)[1])
    torch.manual_seed(1)
    mean = estimator(logits, COST).cost_B.mean()
    estimator.eval()
    found = run(estimator, logits, COST, seed=2)[1]
    shifted = run(build("reinforce"), logits, lambda z: COST(z) - mean, seed=2)[1]
    torch.testing.assert_close(found, shifted, rtol=1e-5, atol=1e-6)


def test_the_average_forgets_at_its_rate():
    estimator = build("reinforce_ema", decay=0.5)
    for value in (1.0, 2.0, 4.0):
        estimator.mean.add(torch.tensor([value]))
    assert estimator.mean.value().item() == pytest.approx((4 * 4 + 2 * 2 + 1) / 7)
    estimator.mean.add(torch.zeros(0))
    assert estimator.mean.value().item() == pytest.approx(3.0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("name", "params"), [("reinforce_ema", {}), ("nvil", {}), ("nvil", {"normalize": True})])
def test_a_cost_that_is_not_finite_spoils_its_own_batch_alone(name, params, bad):
    """One example of the second of three batches: its gradient says so, and the state is that of the first batch."""

    def spoilt(z_SBLK):
        return torch.cat([COST(z_SBLK)[:, 1:], torch.full_like(z_SBLK[:, :1, 0, 0], bad)], 1)

    estimator = build(name, **params)
    call(estimator, example_logits(3), COST, seed=1)
    before = copy.deepcopy(estimator.state_dict())
    assert not call(estimator, example_logits(3), spoilt, seed=2)[1].isfinite().all()
    for key, value in estimator.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert call(estimator, example_logits(3), COST, seed=3)[1].isfinite().all()


@pytest.mark.parametrize("state", [0.0, 1.5, -30.0])
def test_unbiased_whatever_the_average(state):
    estimator = build("reinforce_ema")
    estimator.mean.add(torch.tensor([state]))
    assert bias_scores(estimator)[1].abs().max() < MAX_Z


def test_a_baseline_removes_the_variance_of_an_offset():
    estimator = build("reinforce_ema")
    estimator.train()
    for _ in range(50):
        estimator(example_logits()[:1], offset_cost)
    assert total_variance(estimator, offset_cost) < 0.05 * total_variance(build("reinforce"), offset_cost)


# NVIL.


def with_network(context_BX, **params):
    """NVIL with a network that does something."""
    estimator = build("nvil", **params)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        estimator.prepare(2, 3, context_BX.shape[-1])
        for parameter in estimator.parameters():
            torch.nn.init.normal_(parameter)
    return estimator


def gradient(estimator, logits_BLK, cost, context_BX, seed=0):
    leaf = logits_BLK.clone().requires_grad_()
    torch.manual_seed(seed)
    cost_B = estimator(leaf, cost, context_BX).cost_B
    return torch.autograd.grad(cost_B.sum(), leaf)[0]


def test_nvil_subtracts_what_the_network_predicts():
    context = torch.randn(4, 5, dtype=torch.float64)
    estimator = with_network(context, normalize=False).eval()
    predicted_B = estimator.baseline(context.float()).squeeze(-1).double().detach()
    found = gradient(estimator, example_logits(), COST, context)
    expected = run(build("reinforce"), example_logits(), lambda z: COST(z) - predicted_B)[1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unimix", [0.0, 0.1])
def test_nvil_is_declared_unbiased_only_if_it_does_not_normalise(unimix):
    for normalize in (False, True):
        estimator = build("nvil", normalize=normalize, unimix=unimix)
        assert estimator.unbiased is copy.deepcopy(estimator).unbiased is not normalize
        assert check_declaration(estimator).endswith(", biased" if normalize else ", unbiased")
        assert ("declared biased" in check_bias(estimator)) is normalize


@pytest.mark.parametrize("normalize", [True, False])
def test_nvil_is_unbiased_up_to_its_scale(normalize):
    """Frozen moments and a network that is wrong: the mean is the gradient over max(1, σ), σ of the moments."""
    context = torch.randn(1, 5).expand(N_REPLICAS, -1)
    estimator = with_network(context, normalize=normalize)
    for value in (-9.0, 15.0):
        estimator.mean.add(torch.tensor([value]))
        estimator.square.add(torch.tensor([value**2]))
    mean, square = estimator.mean.value().item(), estimator.square.value().item()
    scale = max(1.0, (square - mean**2) ** 0.5) if normalize else 1.0
    assert scale > 5 or not normalize
    found = gradient(estimator.eval(), ROWS_NLK, COST, context)
    truth = exact_gradient(ROWS_NLK[0], COST)[1]
    assert z_scores(found, truth / scale).abs().max() < MAX_Z
    assert (z_scores(found, truth).abs().max() > MAX_Z) == normalize


def test_nvil_trains_its_network_and_nothing_else():
    context = torch.randn(4, 5)
    estimator = with_network(context)
    leaf, weights = example_logits().requires_grad_(), example_weights().requires_grad_()
    estimate = estimator(leaf, cubic_cost(weights), context)
    network = list(estimator.parameters())
    on_network = torch.autograd.grad(estimate.control_loss, network, retain_graph=True)
    assert all(each.abs().sum() > 0 for each in on_network)
    others = torch.autograd.grad(estimate.control_loss, [leaf, weights], allow_unused=True, retain_graph=True)
    assert others == (None, None)
    back = torch.autograd.grad(estimate.cost_B.sum(), network, allow_unused=True)
    assert all(each is None for each in back)
    assert build("nvil")(leaf, COST).control_loss is None  # no context, no network


def test_nvil_learns_what_differs_between_examples_and_its_variance_falls():
    """The cost of an example is 50 times the first number of its context, plus a little."""
    torch.manual_seed(0)
    context = torch.randn(64, 3)
    offset = 50 * context[:, 0].double()
    logits = example_logits(64)

    def cost(z_SBLK):
        return COST(z_SBLK) + offset

    estimator = build("nvil", normalize=False, control_lr=0.02)
    estimator.prepare(2, 3, 3)
    optimizer = estimator.control_optimizer()
    before = estimator(logits, cost, context).control_loss.item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = estimator(logits, cost, context).control_loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * before
    draws = torch.stack([gradient(estimator.eval(), logits, cost, context, seed) for seed in range(50)])
    plain = torch.stack([run(build("reinforce"), logits, cost, seed)[1] for seed in range(50)])
    assert draws.var(0).sum() < 0.2 * plain.var(0).sum()


def test_nvil_in_float64_and_without_the_context_it_was_prepared_for():
    estimator = build("nvil").double()
    estimator.prepare(2, 3, n_context=5)
    context_BX = torch.ones(4, 5, dtype=torch.float64)
    estimator(example_logits().requires_grad_(), cubic_cost(example_weights()), context_BX).control_loss.backward()
    late = build("nvil")
    late.prepare(2, 3)
    with pytest.raises(ValueError, match=r"^nvil: expected no context after prepare\(n_context=0\), got one\."):
        late(example_logits(), cubic_cost(example_weights()), context_BX)
    missing = r"^nvil: expected the context that it was prepared for, got none\. Pass context="
    for each in (estimator, estimator.eval()):
        with pytest.raises(ValueError, match=missing):
            each(example_logits(), COST)
        with pytest.raises(ValueError, match=missing):
            draw_codes(example_logits(), each)
        with pytest.raises(ValueError, match=missing):
            expect(example_logits(), COST, each)


def test_nvil_refuses_a_context_of_another_width():
    estimator = with_network(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"^nvil: expected a context of width X = 5, as it was prepared for, got 6\."):
        estimator(example_logits(), COST, torch.zeros(4, 6))


def test_nvil_learns_nothing_from_no_examples():
    estimator = with_network(torch.zeros(0, 5))
    estimate = estimator(torch.zeros(0, 2, 3, requires_grad=True), COST, torch.zeros(0, 5))
    assert estimate.control_loss is None  # the mean of nothing would be NaN
    assert estimator.mean.weight == 0


def test_nvil_state_is_restored():
    context = torch.randn(4, 5)
    estimator = with_network(context)
    estimator(example_logits(), COST, context)
    again = build("nvil")
    again.prepare(2, 3, 5)
    again.load_state_dict(estimator.state_dict())
    found = [gradient(each.eval(), example_logits(), COST, context) for each in (estimator, again)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_nvil_equals_its_naive_version_with_moments():
    estimator = NvilWithState()
    estimator.name = "nvil"
    found = run(estimator, example_logits(), COST)[1]
    torch.testing.assert_close(found, NAIVE["nvil"](estimator, example_logits(), COST, 0), rtol=1e-5, atol=1e-6)


# VIMCO.


@pytest.mark.parametrize("n_samples", [2, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_vimco_is_the_gradient_of_its_bound(n_samples, seed):
    estimator = build("vimco", n_samples=n_samples)
    cost_N, gradient_NLK = run(estimator, ROWS_NLK, COST, seed)
    bound, gradient_LK = exact_bound_gradient(ROWS_NLK[0], COST, n_samples)
    assert z_scores(cost_N, bound).abs() < MAX_Z
    assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


def test_the_bound_of_vimco_is_another_objective_than_the_elbo():
    _, gradient_NLK = run(build("vimco", n_samples=2), ROWS_NLK, COST)
    _, elbo_LK = exact_gradient(ROWS_NLK[0], COST)
    assert z_scores(gradient_NLK, elbo_LK).abs().max() > 3 * MAX_Z


def test_the_control_variate_of_vimco_has_mean_zero_and_takes_variance_away():
    """Σ_i L̂_{−i} ∇ log q_i: what it subtracts from the plain score function of the bound."""
    plain = build("vimco", n_samples=4)
    plain._without_each = lambda log_weight_SB: torch.zeros_like(log_weight_SB)
    ours = run(build("vimco", n_samples=4), ROWS_NLK, offset_cost)[1]
    without = run(plain, ROWS_NLK, offset_cost)[1]
    assert z_scores(without - ours, torch.zeros(2, 3)).abs().max() < MAX_Z
    assert ours.var(0).sum() < 0.05 * without.var(0).sum()


def test_vimco_holds_the_kl():
    assert torch.equal(build("vimco").kl(torch.randn(3, 2, 4)), torch.zeros(3))


# IndeCateR.


def test_one_latent_is_exact_in_a_single_draw():
    logits = example_logits(4, 1, 5)
    cost = cubic_cost(example_weights(1, 5))
    expected = torch.stack([exact_gradient(logits_LK, cost)[1] for logits_LK in logits])
    for seed in range(3):
        torch.testing.assert_close(run(build("indecater"), logits, cost, seed)[1], expected)


def test_a_cost_that_is_a_sum_over_latents_is_exact_too():
    weights = example_weights()
    logits = example_logits()

    def cost(z_SBLK):
        return ((z_SBLK * weights).sum(-1) ** 3).sum(-1)

    expected = torch.stack([exact_gradient(logits_LK, cost)[1] for logits_LK in logits])
    torch.testing.assert_close(run(build("indecater"), logits, cost)[1], expected)


def test_indecater_has_less_variance_than_leave_one_out_at_the_same_evaluations():
    evaluations = build("indecater").n_cost_evals(2, 3)
    assert total_variance(build("indecater")) < total_variance(build("rloo", n_samples=evaluations))


@pytest.mark.parametrize("shape", [(3, 2), (1, 4), (2, 4)])
@pytest.mark.parametrize("name", ["reinforce_ema", "indecater", "vimco"])
def test_unbiased_at_other_shapes(name, shape):
    estimator = build(name, n_samples=2)
    logits_LK, cost = example_logits(1, *shape)[0], cubic_cost(example_weights(*shape))
    found = run(estimator, logits_LK.expand(N_REPLICAS, -1, -1), cost)[1]
    _, truth = exact_bound_gradient(logits_LK, cost, 2) if name == "vimco" else exact_gradient(logits_LK, cost)
    assert z_scores(found, truth).abs().max() < MAX_Z


def test_the_alternatives_are_evaluated_in_chunks():
    seen = []

    def cost(z_SBLK):
        seen.append(z_SBLK.shape[0] * z_SBLK.shape[1])
        return z_SBLK[..., 0].sum(-1)

    build("indecater", n_samples=2)(torch.randn(128, 20, 10, requires_grad=True), cost)
    assert max(seen) <= CODES_PER_CALL
    assert sum(seen) == 128 * build("indecater", n_samples=2).n_cost_evals(20, 10)
