"""Structured prediction: nested estimators against enumeration of the codes of both layers."""

import math
from itertools import product

import pytest
import torch

from estimators import build
from harness.tasks.splits import Splits
from harness.tasks.structured_prediction import StructuredPrediction

N_DRAWS = 20_000
SHAPE = (4, 2)


def small_task(n_latents: int = 1, n_categories: int = 2, *, scale: float = 3.0) -> StructuredPrediction:
    """Return a task on images of 4 × 2 pixels, in float64, with weights large enough for curved costs."""
    torch.manual_seed(0)
    task = StructuredPrediction(n_latents=n_latents, n_categories=n_categories)
    images = torch.zeros(2, math.prod(SHAPE)), torch.zeros(2, dtype=torch.long)
    task.build(Splits(train=images, test=images, image_shape=SHAPE), dict.fromkeys(("z1", "z2"), n_categories))
    task.double()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.mul_(scale)
    return task


def image() -> torch.Tensor:
    return torch.tensor([[1.0, 0, 1, 1, 0, 1, 1, 0]], dtype=torch.float64)


def all_codes(task: StructuredPrediction) -> torch.Tensor:
    """Return all codes of a layer, (N, L, K)."""
    one = torch.eye(task.n_categories, dtype=torch.float64)
    return torch.stack([torch.stack(code) for code in product(one, repeat=task.n_latents)])


def log_prob(logits: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    return (code * logits.log_softmax(-1)).sum((-2, -1))


def expected_cost(task: StructuredPrediction, x_BD: torch.Tensor) -> torch.Tensor:
    """Return E[cost] by a sum over the codes of both layers, without an estimator."""
    codes = all_codes(task)
    total = torch.zeros(len(x_BD), dtype=torch.float64)
    for z1, z2 in product(codes, codes):
        weight = log_prob(task.logits_1(x_BD), z1) + log_prob(task.logits_2(z1), z2)
        total = total + weight.exp() * task.cost_2(z2.expand(len(x_BD), -1, -1), x_BD)
    return total


def gradient(task: StructuredPrediction, loss: torch.Tensor) -> torch.Tensor:
    """Return the gradient of all parameters, in one vector."""
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(task.parameters()))])


def first_layer(task: StructuredPrediction) -> int:
    """Return how many of the parameters, the first ones, belong to the first layer."""
    return sum(one.numel() for one in task.first.parameters())


def built(name: str, **params: object):
    torch.manual_seed(1)
    estimator = build(name, **params).double()
    estimator.prepare(1, 2, 8)
    return estimator


def z_scores(task: StructuredPrediction, outer, inner) -> torch.Tensor:
    """Return (mean − truth)/standard error of the gradient of each parameter, over groups of draws."""
    truth = gradient(task, expected_cost(task, image()).mean())
    groups = []
    torch.manual_seed(2)
    for _ in range(40):
        batch = image().expand(N_DRAWS // 40, -1)
        loss = task.loss((batch, torch.zeros(len(batch))), {"z1": outer, "z2": inner})
        groups.append(gradient(task, loss.terms["cost"].mean()))
    found = torch.stack(groups)
    return (found.mean(0) - truth) / (found.std(0) / math.sqrt(len(groups)) + 1e-12)


def test_exact_estimators_give_the_gradient_of_the_sum_over_both_layers() -> None:
    task = small_task(2, 3)
    x_BD = torch.cat([image(), 1 - image()])
    loss = task.loss((x_BD, torch.zeros(2)), {"z1": build("exact"), "z2": build("exact")}).terms["cost"].mean()
    truth = expected_cost(task, x_BD).mean()
    assert torch.allclose(loss, truth, rtol=1e-12)
    assert torch.allclose(gradient(task, loss), gradient(task, truth), rtol=1e-9, atol=1e-12)


UNBIASED = ("rloo", "carms", "indecater", "muprop", "rebar", "double_cv", "reinforce_ema")


@pytest.mark.parametrize("outer", UNBIASED)
@pytest.mark.parametrize("inner", ["rloo", "muprop", "rebar"])
def test_unbiased_estimators_nest_to_an_unbiased_gradient_of_both_layers(outer: str, inner: str) -> None:
    task = small_task()
    assert z_scores(task, built(outer), built(inner)).abs().max() < 4.5
