"""Each toy's closed form against the sum over all codes, written as a loop."""

import pytest
import torch

from estimators.reference_problem import all_codes
from harness.gradients import toy_problems
from harness.gradients.toy_problems import TOYS


def enumerated(toy, logits_LK):
    probs_LK = logits_LK.softmax(-1)
    total = 0.0
    for z_LK in all_codes(toy.n_latents, toy.n_categories):
        total = total + (probs_LK * z_LK).sum(-1).prod() * toy.cost(z_LK[None, None])[0, 0]
    return total


@pytest.mark.parametrize("name", [name for name in TOYS if not name.startswith("norm")])
def test_the_closed_form_is_the_sum_over_all_codes(name):
    toy = TOYS[name]
    problem = toy.problem(toy.n_categories)
    leaf = problem.logits_BLH[0].clone().requires_grad_()
    value = enumerated(toy, leaf)
    closed = problem.expectation(leaf[None])[0]
    assert closed.item() == pytest.approx(value.item(), rel=1e-12)
    gradients = [torch.autograd.grad(each, leaf)[0] for each in (value, closed)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
def test_the_norm_of_many_binary_variables_is_checked_on_few(power):
    toy = toy_problems._norm(power, n_latents=4)
    problem = toy.problem(2)
    assert problem.expectation(problem.logits_BLH[:1])[0].item() == pytest.approx(
        enumerated(toy, problem.logits_BLH[0]).item(), rel=1e-12
    )
    assert TOYS[f"norm-{power:g}"].n_latents == 128


def test_every_toy_describes_itself():
    for toy in TOYS.values():
        assert toy.meaning.endswith(".")
        z = all_codes(1, toy.n_categories).expand(-1, toy.n_latents, -1)[:, None]
        assert toy.cost(z).shape == (toy.n_categories, 1)
