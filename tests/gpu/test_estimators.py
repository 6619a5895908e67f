"""Every estimator on the device: the mean gradient of the CPU, codes of the given dtype, and no state left behind."""

import math

import pytest
import torch
from torch import Tensor

from estimators import REGISTRY, Estimator
from estimators.declarations import example

N_LATENTS, N_CLASSES = 3, 4
N_COPIES, N_CALLS = 2000, 10
LIMIT = 5.0
"""Largest z-score: with 12 slopes of some 40 estimators, chance exceeds it once in 3,000 runs of this file."""


def new_estimator(name: str) -> tuple[Estimator, int]:
    """Return the estimator in a setting that fits this file, and the number of classes that it works with."""
    try:
        estimator = example(REGISTRY[name])
    except ValueError as error:
        if "the package entmax" not in str(error):
            raise
        pytest.skip(str(error))
    n_classes = 2 if name == "disarm" else N_CLASSES
    estimator.prepare(N_LATENTS, n_classes)
    return estimator, n_classes


def cost(z_SBLK: Tensor) -> Tensor:
    """Return a cost that is neither linear nor separable, for each sample and example."""
    shape = z_SBLK.shape[-2:]
    weights_LK = torch.linspace(-1, 1, math.prod(shape), dtype=z_SBLK.dtype, device=z_SBLK.device).view(shape)
    total_SB = (z_SBLK * weights_LK).sum((-1, -2))
    return total_SB + total_SB**2


def slopes(name: str, device: torch.device, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return one gradient for each independent example: (N_COPIES · N_CALLS, L, K)."""
    estimator, n_classes = new_estimator(name)
    estimator.to(device)
    logits_LK = torch.linspace(-1, 1, N_LATENTS * n_classes).sin().view(N_LATENTS, n_classes)
    torch.manual_seed(seed)
    found = []
    for _ in range(N_CALLS):
        logits_BLK = logits_LK.to(device, dtype).expand(N_COPIES, -1, -1).clone().requires_grad_()
        estimate = estimator(logits_BLK, cost)
        assert estimate.cost_B.device.type == device.type
        (slope_BLK,) = torch.autograd.grad(estimate.cost_B.sum(), logits_BLK)
        assert slope_BLK.dtype == dtype
        found.append(slope_BLK.detach().double().cpu())
    return torch.cat(found)


@pytest.mark.parametrize("name", REGISTRY)
def test_mean_gradient_on_the_device_is_that_of_the_cpu(name: str, device: torch.device) -> None:
    there, here = slopes(name, device, seed=1), slopes(name, torch.device("cpu"), seed=2)
    error_LK = ((there.var(0) + here.var(0)) / len(here)).sqrt()
    off_LK = (there.mean(0) - here.mean(0)).abs()
    assert here.mean(0).abs().max() > 1e-3
    assert (off_LK <= LIMIT * error_LK + 1e-9).all(), (off_LK / error_LK).max()


@pytest.mark.parametrize("name", REGISTRY)
def test_half_precision_on_the_device_is_finite(name: str, device: torch.device) -> None:
    assert slopes(name, device, 1, torch.bfloat16).isfinite().all()
