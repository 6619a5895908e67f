"""The backbone: its shapes and its likelihood."""

import math

import pytest
import torch
from torch.nn import functional as F

from harness.tasks.vae import CategoricalVAE, bernoulli_nll


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
