"""AIMLE: at a fixed λ it is the mean of two of imle; scales of the cost, shapes, masks, precision.

L=2, K=3 and a cubic cost in which the latents interact, unless stated otherwise. Means: 20 000 draws, |z| < 5.
How λ adapts: test_aimle_step.py.
"""

import math

import pytest
import torch
from families.adaptive_imle import step_state

from estimators import build
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    call,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)

COST = cubic_cost(example_weights())


def fixed(beta, **params):
    """An estimator in float64 whose ‖∇f‖ is 1 and whose λ is therefore `beta`, out of training."""
    estimator = build("aimle", **params).double().eval()
    for buffer, value in ((estimator.step.beta, beta), (estimator.step.log_square, 0.0), (estimator.step.weight, 1.0)):
        buffer.fill_(value)
    return estimator


def linear_cost(z_SBLK):
    return (z_SBLK * example_weights()).sum((-1, -2))


def mean_scores(estimator, expected_LK, cost):
    gradient_NLK = run(estimator, example_logits()[0].expand(N_REPLICAS, -1, -1), cost)[1]
    return z_scores(gradient_NLK, expected_LK).abs().max()


# At a fixed λ.


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("lam", [0.05, 1.0, 20.0])
def test_at_a_fixed_lambda_it_is_half_of_imle_forward_and_backward(lam, n_samples):
    """(D₊ − D₋)/(2λ) is half of (D − D₋)/λ, which is imle, and half of (D₊ − D)/λ, imle of −f with the other sign."""
    logits_BLK = example_logits(64)
    imle = build("imle", lam=lam, n_samples=n_samples)
    (cost_B, forward_BLK), (_, other_BLK) = run(imle, logits_BLK, COST), run(imle, logits_BLK, lambda z: -COST(z))
    found = run(fixed(lam, n_samples=n_samples), logits_BLK, COST)
    torch.testing.assert_close(found, (cost_B, (forward_BLK - other_BLK) / 2))
    assert not torch.allclose(found[1], forward_BLK)


@pytest.mark.parametrize("lam", [0.2, 2.0])
def test_its_mean_on_a_linear_cost_is_the_difference_of_two_softmaxes(lam):
    """(π(θ + λg) − π(θ − λg))/(2λ): the two argmaxes share their noise, and each is a sample."""
    logits_LK, step_LK = example_logits()[0], lam * example_weights()
    expected_LK = ((logits_LK + step_LK).softmax(-1) - (logits_LK - step_LK).softmax(-1)) / (2 * lam)
    assert mean_scores(fixed(lam), expected_LK, linear_cost) < MAX_Z
    assert mean_scores(fixed(lam), 1.3 * expected_LK, linear_cost) > MAX_Z


def test_on_a_linear_cost_it_is_nearly_unbiased_where_imle_is_not():
    truth_LK = exact_gradient(example_logits()[0], linear_cost)[1]
    assert mean_scores(fixed(0.7), truth_LK, linear_cost) < MAX_Z
    assert mean_scores(build("imle", lam=0.7), truth_LK, linear_cost) > MAX_Z


# Scales.


def gradients_of(estimator, factor, n_calls=6):
    return [call(estimator, example_logits(16), lambda z: factor * COST(z), seed)[1] for seed in range(n_calls)]


@pytest.mark.parametrize("factor", [1000.0, 1e-6])
def test_a_cost_of_another_scale_has_the_same_direction_unlike_in_imle(factor):
    for plain_BLK, scaled_BLK in zip(*(gradients_of(build("aimle").double(), f) for f in (1.0, factor)), strict=True):
        torch.testing.assert_close(scaled_BLK, factor * plain_BLK, rtol=1e-6, atol=0)
    plain, scaled = (torch.cat(gradients_of(build("imle", lam=0.3), f)).flatten() for f in (1.0, factor))
    assert torch.nn.functional.cosine_similarity(plain, scaled, 0) < 0.7


def test_it_follows_a_cost_whose_scale_changes():
    estimator = build("aimle", target=1.0, rate=0.05)
    share = [
        sum((each != 0).double().sum(-1).mean().item() for each in gradients_of(estimator, factor, 300)[-100:]) / 100
        for factor in (1.0, 100.0, 1.0)
    ]
    assert all(abs(each - 1) < 0.1 for each in share)


def test_it_does_not_depend_on_the_weight_of_the_cost_in_the_loss():
    """A mean over the batch, a sum and a loss scale give the same direction and move the state alike."""
    plain = build("aimle", n_samples=3).double()
    plain_BLK = call(plain, example_logits(5), COST)[1]
    for weight_B in (torch.full((5,), 1 / 5), torch.full((5,), -1024.0), torch.tensor([0.1, 1.0, -2.0, 1e-6, 3.0])):
        estimator, leaf_BLK = build("aimle", n_samples=3).double(), example_logits(5).requires_grad_()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            cost_B = estimator(leaf_BLK, COST).cost_B
        (gradient_BLK,) = torch.autograd.grad((weight_B.double() * cost_B).sum(), leaf_BLK)
        torch.testing.assert_close(gradient_BLK, weight_B.double()[:, None, None] * plain_BLK)
        assert step_state(estimator) == pytest.approx(step_state(plain))


# Shapes, masks, precision.


@pytest.mark.parametrize("steep", [lambda z: 1e6 * z, torch.sqrt], ids=["1e6", "infinite"])
def test_masked_classes_count_neither_in_the_gradient_nor_in_the_step(steep):
    """Whatever the slope is there: the step is that of the problem without them."""
    logits_BLK = example_logits(400)
    masked_BLK = torch.cat([logits_BLK, torch.full((400, 2, 2), -math.inf)], -1)
    estimator, small = build("aimle").double(), build("aimle").double()

    def cost(z_SBLK):
        return linear_cost(z_SBLK[..., :3]) + steep(z_SBLK[..., 3:]).sum((-1, -2))

    for seed in range(3):
        gradient_BLK = call(estimator, masked_BLK, cost, seed)[1]
        call(small, logits_BLK, linear_cost, seed)
        assert gradient_BLK.isfinite().all()
        assert (gradient_BLK[..., 3:] == 0).all()
        assert (gradient_BLK != 0).any()
    assert step_state(estimator)["log_square"] == pytest.approx(step_state(small)["log_square"])
    assert step_state(estimator)["nonzero"] == pytest.approx(step_state(small)["nonzero"], rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 2), (2, 1000)])
def test_two_and_a_thousand_classes_in_any_precision(shape, dtype):
    logits_BLK = example_logits(64, *shape)
    estimator, wide = build("aimle"), build("aimle")
    for seed in range(3):
        found_BLK = call(estimator, logits_BLK.to(dtype), cubic_cost(example_weights(*shape).to(dtype)), seed)[1]
        expected_BLK = call(wide, logits_BLK.to(dtype).float(), cubic_cost(example_weights(*shape).float()), seed)[1]
        assert found_BLK.dtype == dtype
        assert (found_BLK.float() - expected_BLK).norm() < 0.4 * expected_BLK.norm()
    assert step_state(estimator) == pytest.approx(step_state(wide), rel=0.1)


def test_it_works_under_torch_func_out_of_training():
    estimator, logits_BLK = fixed(1.0), example_logits()
    expected_BLK = run(estimator, logits_BLK, COST)[1]
    torch.manual_seed(0)
    found_BLK = torch.func.grad(lambda leaf_BLK: estimator(leaf_BLK, COST).cost_B.sum())(logits_BLK)
    torch.testing.assert_close(found_BLK, expected_BLK)


def test_one_class_has_no_gradient():
    estimator = build("aimle")
    assert (call(estimator, torch.zeros(4, 2, 1), lambda z: z.sum((-1, -2)))[1] == 0).all()
    assert step_state(estimator) == step_state(build("aimle"))


@pytest.mark.parametrize(("name", "params"), [("aimle", {}), ("imle", {"lam": 1.0})])
def test_a_cost_that_is_not_a_number_has_a_gradient_that_is_none(name, params):
    estimator, logits_BLK = build(name, **params), example_logits(4)
    gradient_BLK = call(estimator, logits_BLK, lambda z: linear_cost(z) * torch.tensor([1.0, torch.nan, 1.0, 1.0]))[1]
    assert gradient_BLK[1].isnan().all()
    assert gradient_BLK[[0, 2, 3]].isfinite().all()
    assert name == "imle" or all(map(math.isfinite, step_state(estimator).values()))
