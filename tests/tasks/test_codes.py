"""One-hot codes: their divergence from the uniform law, and their samples."""

import math

import pytest
import torch

from harness.tasks.codes import kl_to_uniform, one_hot_samples, probs_and_entropy


def test_kl_equals_its_definition_and_is_zero_for_uniform() -> None:
    logits = torch.randn(7, 3, 5, dtype=torch.float64) * 3
    q = logits.softmax(-1)
    torch.testing.assert_close(kl_to_uniform(logits), (q * (q.log() + math.log(5))).sum((-2, -1)))
    assert kl_to_uniform(torch.full((2, 3, 5), 7.0)).abs().max() < 1e-5


def test_first_and_second_derivative_of_the_kl() -> None:
    logits = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kl_to_uniform, (logits,))
    assert torch.autograd.gradgradcheck(kl_to_uniform, (logits,))


def test_kl_at_extreme_logits_is_log_k_with_finite_gradient() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0]]], requires_grad=True)
    kl = kl_to_uniform(logits)
    assert kl.item() == pytest.approx(math.log(3))
    kl.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_samples_are_one_hot_and_follow_softmax() -> None:
    logits = torch.tensor([[[0.0, 1.0, 2.0, -1.0], [3.0, 0.0, 0.0, 0.0]]])
    torch.manual_seed(0)
    z = one_hot_samples(logits, 40_000)
    assert z.shape == (40_000, 1, 2, 4)
    assert ((z == 0) | (z == 1)).all()
    assert (z.sum(-1) == 1).all()
    probs = logits.softmax(-1)
    chi_squared = (40_000 * (z.mean(0) - probs) ** 2 / probs).sum(-1)
    assert (chi_squared < 21.1).all()  # 3 degrees of freedom: exceeded once in 10,000


def test_samples_survive_extreme_logits_and_ties() -> None:
    z = one_hot_samples(torch.tensor([[[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]]]), 100)
    assert (z[:, 0, 0, 0] == 1).all()
    assert (z.sum(-1) == 1).all()


def test_forbidden_classes_leave_entropy_and_kl_finite() -> None:
    allowed_BLK = torch.tensor([[[0.3, -0.2, 1.0]]], requires_grad=True)
    masked_BLK = torch.cat([allowed_BLK, torch.full((1, 1, 1), -torch.inf)], -1)
    probs_BLK, entropy_BL = probs_and_entropy(masked_BLK.detach())
    wanted = torch.distributions.Categorical(logits=allowed_BLK[0, 0].detach())
    torch.testing.assert_close(entropy_BL[0, 0], wanted.entropy())
    assert probs_BLK[0, 0, -1] == 0
    kl_B = kl_to_uniform(masked_BLK)
    torch.testing.assert_close(kl_B[0], math.log(4) - wanted.entropy())
    (slope,) = torch.autograd.grad(kl_B.sum(), allowed_BLK)
    (other,) = torch.autograd.grad(kl_to_uniform(allowed_BLK).sum(), allowed_BLK)
    torch.testing.assert_close(slope, other)
