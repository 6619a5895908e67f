"""What every family is made of: noise, softmax, the class of the largest entry. Values, slopes, laws, extremes."""

import pytest
import torch
from scipy import stats

from estimators.gumbel import argmax, exponential, one_hot, sample_classes
from estimators.simplex import LONGEST_ROW, log_softmax, softmax

DTYPES = [torch.float32, torch.float64]
WIDTHS = [1, 2, 10, LONGEST_ROW, LONGEST_ROW + 1]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_noise_is_exponential_positive_and_finite(dtype):
    torch.manual_seed(0)
    noise = exponential((200_000,), like=torch.zeros(1, dtype=dtype))
    assert noise.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert (noise > 0).all()
    assert noise.isfinite().all()
    assert stats.kstest(noise.double().numpy(), "expon").pvalue > 1e-4


def test_noise_is_finite_where_the_uniform_number_is_0(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, dtype, **_: torch.zeros(shape, dtype=dtype))
    assert exponential((3,), like=torch.zeros(1)).tolist() == pytest.approx([17.33] * 3, abs=0.01)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_its_logarithm_equal_torch(dtype, width):
    torch.manual_seed(0)
    logits = 20 * torch.randn(4, 3, width, dtype=dtype)
    torch.testing.assert_close(softmax(logits), logits.softmax(-1))
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(-1))
    assert softmax(logits).is_contiguous()


@pytest.mark.parametrize("width", WIDTHS)
def test_first_and_second_derivatives_of_softmax(width):
    logits = torch.randn(2, width, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softmax, logits)
    assert torch.autograd.gradgradcheck(softmax, logits)
    assert torch.autograd.gradcheck(log_softmax, logits)


def test_extreme_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-torch.inf, 0.0, 0.0]])
    torch.testing.assert_close(softmax(logits), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]]))
    assert log_softmax(logits)[0].tolist() == [0.0, -2e4, -1e4]
    assert log_softmax(logits)[1, 0] == -torch.inf


def test_large_common_logits_do_not_blur_small_differences():
    small = torch.tensor([[0.0, 0.5, 1.0]])
    torch.testing.assert_close(log_softmax(small + 2**20), log_softmax(small))


def test_argmax_is_the_class_of_the_largest_entry():
    x = torch.randn(5, 4, 7)
    assert torch.equal(argmax(x), x.argmax(-1))


def test_vmap_draws_codes_of_its_own_for_each_entry():
    logits_BLK = torch.zeros(4, 3, 5)

    def codes(scale):
        return one_hot(sample_classes(logits_BLK, 2), like=logits_BLK) * scale

    torch.manual_seed(0)
    mapped = torch.func.vmap(codes, randomness="different")(torch.ones(6))
    assert mapped.shape == (6, 2, 4, 3, 5)
    assert torch.equal(mapped.sum(-1), torch.ones(6, 2, 4, 3))
    assert not torch.equal(mapped[0], mapped[1])
