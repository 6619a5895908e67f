"""Checks that the same seed and the same state give the same bits."""

import torch
from torch import Tensor

from estimators.base import Cost, Estimator
from estimators.reference_problem import Shape, call, cost_for, logits_for, prepared, require, run, seeded

N_CALLS = 20


def check_determinism(estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None) -> str:
    """Check that the same seed of torch's generator gives the same bits, and that no call sets a seed."""
    logits_BLK, cost = logits_for(estimator, model=model).to(dtype), cost_for(estimator, model)
    first, second = (run(estimator, logits_BLK, cost, seed=7, model=model) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        same = "the same bits from the same seed of torch's generator"
        require(estimator, torch.equal(one, other), same, f"a difference of {(one - other).abs().max():.1e}")
    states = [_noise_after_a_call(prepared(estimator, logits_BLK, model), logits_BLK, cost, seed) for seed in (0, 1)]
    require(estimator, not torch.equal(*states), "noise that goes on", "the same noise in every call: a seed is set")
    return "same seed, same bits"


def _noise_after_a_call(estimator: Estimator, logits_BLK: Tensor, cost: Cost, seed: int) -> Tensor:
    with seeded(seed, logits_BLK):
        estimator(logits_BLK.detach().requires_grad_(), cost)
        return torch.get_rng_state()


def check_state(estimator: Estimator) -> str:
    """Check that the state dict has all that calls change: a checkpoint has no more."""
    old, new = (prepared(estimator, logits_for(estimator)).train() for _ in range(2))
    for seed in range(N_CALLS):
        logits_BLK = logits_for(estimator).requires_grad_()
        with seeded(seed, logits_BLK):
            cost_B = old(logits_BLK, cost_for(estimator)).cost_B
        torch.autograd.grad(cost_B.sum(), logits_BLK)  # some change in the backward pass
    new.load_state_dict(old.state_dict())
    results = (call(each, logits_for(estimator), cost_for(estimator), seed=N_CALLS) for each in (old, new))
    for one, other in zip(*results, strict=True):
        same = "the bits that a new object with its state dict gives; keep what changes in buffers (register_buffer)"
        require(estimator, torch.equal(one, other), same, f"a difference of {(one - other).abs().max():.1e}")
    return f"a new object with its state dict gives the same bits after {N_CALLS} calls"
