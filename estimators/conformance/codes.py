"""Checks of shapes, dtypes and codes, also at extreme logits."""

import copy
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from estimators.base import Estimator
from estimators.reference_problem import (
    Shape,
    Spy,
    accepts,
    cost_for,
    cubic_cost,
    example_shape,
    example_weights,
    logits_for,
    require,
    run,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def check_shapes_and_dtypes(
    estimator: Estimator, dtypes: Sequence[torch.dtype] = DTYPES, model: Shape | None = None
) -> str:
    """Check that the cost has shape (B,), and that codes, cost and gradient keep the dtype of the logits."""
    for dtype in dtypes:
        logits_BLK = logits_for(estimator, model=model).to(dtype)
        spy = Spy(cost_for(estimator, model), shape=(len(logits_BLK), *example_shape(estimator, model)))
        cost_B, gradient_BLK = run(estimator, logits_BLK, spy, model=model)
        require(estimator, spy.codes, "a call of the cost", "none")
        require(estimator, cost_B.shape == logits_BLK.shape[:1], "cost_B of shape (4,)", tuple(cost_B.shape))
        for what, tensor in (("codes", spy.codes[0]), ("cost", cost_B), ("gradient", gradient_BLK)):
            require(estimator, tensor.dtype == dtype, f"{what} of {dtype}", tensor.dtype)
    return f"{', '.join(str(dtype).removeprefix('torch.') for dtype in dtypes)} are kept"


def check_codes(
    estimator: Estimator,
    dtypes: Sequence[torch.dtype] = DTYPES,
    n_examples: int = 4096,
    model: Shape | None = None,
) -> str:
    """Check that the cost sees one-hot codes, or points of the simplex if the estimator relaxes or declares them."""
    for dtype in dtypes:
        spy = Spy(cost_for(estimator, model))
        logits_BLK = logits_for(estimator, n_examples, model).to(dtype)  # many, for a rounding error to show
        run(estimator, logits_BLK, spy, model=model)
        for z_SBLK in spy.codes:
            _require_codes(estimator, z_SBLK)
        one_hot = any(bool((z_SBLK.amax(-1) == 1).all()) for z_SBLK in spy.codes)
        require(estimator, estimator.relaxes or one_hot, "one-hot codes among those evaluated", "soft ones only")
    return "on the simplex" if estimator.relaxes or estimator.evaluates_soft else "exactly one-hot"


def check_extremes(estimator: Estimator) -> str:
    """Check that codes stay valid, cost and gradient finite: logits of ±1e4, ties, K = 1, B = 0 or 1, tau = 1e-3."""
    count = 0
    for temperature, (logits_BLK, shape), dtype in product((None, 1e-3), _extreme_logits(estimator), DTYPES):
        candidate = copy.deepcopy(estimator)
        for key in candidate.temperatures if temperature is not None else ():
            setattr(candidate, key, temperature)
        spy = Spy(cubic_cost(example_weights(*shape)))
        cost_B, gradient_BLK = run(candidate, logits_BLK.to(dtype), spy)
        for z_SBLK in spy.codes:
            _require_codes(candidate, z_SBLK)
        for what, tensor in (("cost", cost_B), ("gradient", gradient_BLK)):
            where = f"finite {what} for {dtype}, tau = {temperature or candidate.tau}, logits {logits_BLK.tolist()}"
            require(candidate, bool(tensor.isfinite().all()), where, tensor.tolist())
        count += 1
    return f"finite in {count} extreme settings"


def _extreme_logits(estimator: Estimator) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Yield (logits_BLH, (L, K)) at the example shape and at K=1, wherever the estimator accepts them."""
    n_latents, n_categories = example_shape(estimator)
    width = estimator.n_outputs(n_categories)
    signs_LH = torch.arange(n_latents * width).view(1, n_latents, width) % 3 - 1.0
    first_H = (torch.arange(width) == 0).double()
    for logits_BLH in (
        signs_LH * 1e4,
        (torch.arange(n_latents).view(1, -1, 1) % 2 * -2.0 + 1).expand(1, n_latents, width) * 1e4,
        torch.zeros(2, n_latents, width),
        torch.stack([200 * first_H, -200 * first_H])[torch.arange(n_latents) % 2].unsqueeze(0),
        torch.zeros(0, n_latents, width),
    ):
        yield logits_BLH, (n_latents, n_categories)
    if accepts(estimator, n_latents, 1):
        yield torch.ones(3, n_latents, estimator.n_outputs(1)), (n_latents, 1)


def _require_codes(estimator: Estimator, z_SBLK: Tensor) -> None:
    require(estimator, bool(z_SBLK.isfinite().all()), "finite codes", "NaN or ∞")
    if estimator.relaxes or estimator.evaluates_soft:
        tolerance = max(8, z_SBLK.shape[-1]) * torch.finfo(z_SBLK.dtype).eps  # a sum of K rounded terms, in any order
        largest = (z_SBLK.double().sum(-1) - 1).abs().max().item() if z_SBLK.numel() else 0.0
        require(estimator, bool((z_SBLK >= 0).all()), "codes without negative entries", z_SBLK)
        require(estimator, largest <= tolerance, f"codes that sum to 1 within {tolerance:.0e}", f"off by {largest:.0e}")
    else:
        ones_SBL = (z_SBLK == 1).sum(-1)
        exact = (ones_SBL == 1).all() and (z_SBLK.count_nonzero(-1) == 1).all()
        require(estimator, bool(exact), "exactly one-hot codes", z_SBLK)
