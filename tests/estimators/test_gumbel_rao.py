"""Gumbel-Rao in chunks: the same gradient whatever the chunk, no noise without a gradient, no small divisors."""

import pytest
import torch

from estimators import build, gumbel_rao
from estimators.gumbel import exponential
from estimators.gumbel_rao import log_ratios
from estimators.reference_problem import example_logits, run


def cost(z_SBLK):
    return (z_SBLK * torch.linspace(-1, 1, z_SBLK.shape[-1], dtype=z_SBLK.dtype)).sum((-2, -1)).pow(3)


@pytest.mark.parametrize("name", ["gumbel_rao", "reinmax_rao"])
def test_the_gradient_does_not_depend_on_the_chunk(name, monkeypatch):
    estimator, logits_BLK = build(name, n_draws=7, n_samples=2, tau=0.5), example_logits()
    whole = run(estimator, logits_BLK, cost)[1]
    for entries in (1, logits_BLK.numel() * 2 * 3):  # one draw at a time; three, three and the last one
        monkeypatch.setattr(gumbel_rao, "ENTRIES_AT_ONCE", entries)
        torch.testing.assert_close(run(estimator, logits_BLK, cost)[1], whole)


def test_never_more_than_a_chunk_of_noise_is_drawn(monkeypatch):
    drawn = []

    def counted(shape, like, generator=None):
        drawn.append(torch.Size(shape).numel())
        return exponential(shape, like, generator)

    monkeypatch.setattr(gumbel_rao, "exponential", counted)
    run(build("gumbel_rao", n_draws=1000), torch.zeros(128, 4, 10), cost)
    assert sum(drawn) == 1000 * 128 * 4 * 10
    assert max(drawn) <= gumbel_rao.ENTRIES_AT_ONCE


def test_a_value_without_a_gradient_draws_no_conditional_noise(monkeypatch):
    monkeypatch.setattr(gumbel_rao, "exponential", lambda *_: pytest.fail("noise was drawn"))
    with torch.no_grad():
        assert build("gumbel_rao")(example_logits(), cost).cost_B.isfinite().all()


def test_gradient_of_tau_with_a_class_of_probability_0_and_with_an_empty_batch():
    for logits_BLK in (torch.tensor([[[0.0, 1.0, -torch.inf]]]), torch.zeros(0, 2, 3)):
        estimator, leaf_BLK = build("gumbel_rao"), logits_BLK.requires_grad_()
        estimator.tau = torch.tensor(0.7, requires_grad=True)
        total = estimator(leaf_BLK, cost).cost_B.sum()
        for slope in torch.autograd.grad(total, [leaf_BLK, estimator.tau]):
            assert slope.isfinite().all()


def test_two_backward_passes_of_one_forward_pass_use_the_same_noise():
    logits_BLK = example_logits().requires_grad_()
    total = build("gumbel_rao")(logits_BLK, cost).cost_B.sum()
    first, second = (torch.autograd.grad(total, logits_BLK, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_differences_are_right_where_a_probability_is_below_the_smallest_number():
    """π_j = e^−200 is 0 in float32, its logarithm is not; float64 has both."""
    torch.manual_seed(0)
    log_probs = torch.tensor([[0.0, -0.1], [-200.0, -2.4]])
    noise = torch.rand(5, 2, 2) + 0.1
    found = log_ratios(log_probs, torch.tensor([0, 1]), noise)
    exact = log_ratios(log_probs.double(), torch.tensor([0, 1]), noise.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert (found <= 0).all()
    assert (found[:, 0, 0] == 0).all()
    assert (found[:, 1, 0] < -190).all()
