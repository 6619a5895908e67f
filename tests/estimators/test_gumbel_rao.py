"""Gumbel-Rao in chunks: the same gradient whatever the chunk, no noise without a gradient, no small divisors."""

import pytest
import torch
from scipy import stats

from estimators import build, rao_slope
from estimators.gumbel import sample_classes
from estimators.rao_slope import log_ratios, mean_slope, stratified
from estimators.reference_problem import example_logits, run


def cost(z_SBLK):
    return (z_SBLK * torch.linspace(-1, 1, z_SBLK.shape[-1], dtype=z_SBLK.dtype)).sum((-2, -1)).pow(3)


@pytest.mark.parametrize("name", ["gumbel_rao", "reinmax_rao"])
def test_the_gradient_does_not_depend_on_the_chunk(name, monkeypatch):
    estimator, logits_BLK = build(name, n_draws=7, n_samples=2, tau=0.5), example_logits()
    whole = run(estimator, logits_BLK, cost)[1]
    for entries in (1, logits_BLK.numel() * 2 * 3):  # one draw at a time; three, three and the last one
        monkeypatch.setattr(rao_slope, "ENTRIES_AT_ONCE", entries)
        torch.testing.assert_close(run(estimator, logits_BLK, cost)[1], whole)


def test_never_more_than_a_chunk_of_noise_is_made():
    parts = list(stratified(1000, torch.zeros(10, 512), torch.Generator()))
    assert sum(len(part) for part in parts) == 1000
    assert max(part.numel() for part in parts) <= rao_slope.ENTRIES_AT_ONCE


def test_a_value_without_a_gradient_draws_no_conditional_noise(monkeypatch):
    monkeypatch.setattr(rao_slope, "stratified", lambda *_: pytest.fail("noise was drawn"))
    with torch.no_grad():
        assert build("gumbel_rao")(example_logits(), cost).cost_B.isfinite().all()


@pytest.mark.parametrize("n_draws", [1, 7, 100])
def test_each_draw_is_uniform_and_independent_and_each_entry_has_one_in_each_stratum(n_draws):
    like_KN = torch.zeros(3, 4000, dtype=torch.float64)
    (noise_MKN,) = stratified(n_draws, like_KN.narrow(1, 0, 300 if n_draws == 100 else 4000), torch.Generator())
    uniform_MKN = noise_MKN.exp()
    # up to the common shift, the draws of an entry are the multiples of 1/n_draws
    sorted_MKN = uniform_MKN.sort(0).values
    torch.testing.assert_close(
        sorted_MKN - sorted_MKN[:1], (torch.arange(n_draws) / n_draws).view(-1, 1, 1).expand_as(noise_MKN).double()
    )
    for one_KN in (uniform_MKN[0], uniform_MKN[-1]):
        assert stats.kstest(one_KN.flatten().numpy(), "uniform").pvalue > 1e-6
        assert one_KN.corrcoef().fill_diagonal_(0).abs().max() < 5 / one_KN.shape[1] ** 0.5


def test_each_class_has_a_random_order_of_its_own():
    """Over seeds, the places of two classes in the first draw are uniform and uncorrelated."""
    firsts = []
    for seed in range(2000):
        (noise_MKN,) = stratified(4, torch.zeros(2, 1, dtype=torch.float64), torch.Generator().manual_seed(seed))
        firsts.append((noise_MKN.exp() * 4).long().argsort(0)[:, :, 0])  # the draw in each stratum
    first_stratum_K = torch.stack(firsts)[:, 0]
    counts = torch.bincount(first_stratum_K[:, 0] * 4 + first_stratum_K[:, 1], minlength=16)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_ten_stratified_draws_vary_less_than_half_as_much_as_independent_ones(tau):
    """Var of a mean of M independent draws is that of one draw over M."""
    torch.manual_seed(0)
    logits_NK, grad_NK = (torch.randn(20, 10, dtype=torch.float64).repeat(400, 1) for _ in range(2))
    class_N = sample_classes(logits_NK[:20, None], 1).flatten().repeat(400)
    one, ten = (
        mean_slope(grad_NK, logits_NK.log_softmax(-1), class_N, torch.Generator(), tau, n, learns_tau=False)[0]
        .view(400, 20, 10).var(0).sum() for n in (1, 10)
    )  # fmt: skip
    assert ten < 0.5 * one / 10


def test_at_tau_1_the_way_without_logarithms_gives_the_same():
    logits_NK, grad_NK = example_logits(500, 1, 5)[:, 0].detach(), torch.randn(500, 5, dtype=torch.float64)
    class_N = torch.arange(500) % 5
    settings = [{"tau": 1.0, "learns_tau": False}, {"tau": torch.tensor(1.0), "learns_tau": False}]
    one, other = (
        mean_slope(grad_NK, logits_NK.log_softmax(-1), class_N, torch.Generator(), n_draws=9, **each)[0]
        for each in settings
    )
    torch.testing.assert_close(one, other)


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
    """π_j = e^−200 is 0 in float32, its logarithm is not; float64 has both. Class 0 is the sampled one."""
    torch.manual_seed(0)
    log_probs_RN, noise_MKN = torch.tensor([[-200.0, -2.4]]), -torch.rand(5, 2, 2) - 0.1
    found, exact = (
        log_ratios(log_probs_RN.to(dtype), noise_MKN[:, :1].to(dtype), noise_MKN[:, 1:].to(dtype))
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert (found <= 0).all()
    assert (found[..., 0] < -190).all()
