"""The backbone: its likelihood, its divergence, its samples."""

import math

import pytest
import torch
from torch.nn import functional as F

from harness.tasks.vae import CategoricalVAE, bernoulli_nll, kl_to_uniform, one_hot_samples


def make(**changes: object) -> CategoricalVAE:
    settings = {"n_pixels": 12, "n_latents": 3, "n_categories": 4, "hidden": (8, 6)} | changes
    return CategoricalVAE(**settings)  # type: ignore[arg-type]


def test_shapes_and_mirrored_layers() -> None:
    vae = make()
    assert vae.encode(torch.rand(5, 12)).shape == (5, 3, 4)
    assert vae.decode(torch.rand(2, 5, 3, 4)).shape == (2, 5, 12)
    sizes = [tuple(p.shape) for p in vae.parameters() if p.dim() == 2]
    assert sizes == [(8, 12), (6, 8), (12, 6), (6, 12), (8, 6), (12, 8)]


def test_logits_activation_is_an_option() -> None:
    assert (make(logits_activation="relu").encode(torch.randn(50, 12)) >= 0).all()
    assert (make().encode(torch.randn(50, 12)) < 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_likelihood_equals_the_library_one(dtype: torch.dtype) -> None:
    pixels = (torch.randn(3, 5, 700, dtype=dtype) * 8).requires_grad_()
    x = torch.rand(5, 700, dtype=dtype)
    expected = F.binary_cross_entropy_with_logits(pixels, x.expand(3, 5, 700), reduction="none").sum(-1)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(bernoulli_nll(pixels, x), expected, rtol=tolerance, atol=0)
    weight = torch.randn(3, 5, dtype=dtype)
    ours, theirs = (
        torch.autograd.grad((nll * weight).sum(), pixels)[0] for nll in (bernoulli_nll(pixels, x), expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_likelihood_has_first_and_second_derivatives() -> None:
    pixels = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    x = torch.rand(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: bernoulli_nll(p, x), (pixels,))
    assert torch.autograd.gradgradcheck(lambda p: bernoulli_nll(p, x), (pixels,))


def test_likelihood_is_finite_at_extreme_logits() -> None:
    pixels = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]], requires_grad=True)
    x = torch.tensor([[1.0, 1.0, 0.5, 0.0, 0.0]])
    nll = bernoulli_nll(pixels, x)
    assert nll.item() == pytest.approx(2 * 1e4 + 2 * 100 + math.log(2), rel=1e-6)
    nll.sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.tolist() == [[-1.0, -1.0, 0.0, 1.0, 1.0]]


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
