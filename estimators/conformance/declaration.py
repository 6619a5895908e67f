"""Checks of what an estimator declares: facts, numbers of evaluations, costs that it takes or refuses."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from estimators.base import Estimator, parameters
from estimators.reference_problem import (
    Spy,
    cost_for,
    cubic_cost,
    example_logits,
    example_shape,
    example_weights,
    logits_for,
    require,
    run,
    shapes,
)


def check_declaration(estimator: Estimator) -> str:
    """Check that facts are declared and consistent, and that an impossible tau is refused in one line."""
    cls, name = type(estimator), estimator.name
    construct: Callable[..., Estimator] = cls
    for key in ("unbiased", "relaxes", "shift_invariant", "black_box", "evaluates_soft"):
        require(estimator, isinstance(getattr(cls, key), bool), f"a bool {key}", getattr(cls, key))
    for key in ("title", "reference", "use_when"):
        text = getattr(cls, key)
        require(estimator, isinstance(text, str) and text and "\n" not in text, f"a one-line {key}", text)
    require(estimator, estimator.n_samples >= cls.min_samples, f"n_samples >= {cls.min_samples}", estimator.n_samples)
    require(
        estimator,
        (estimator.tau is not None) == cls.uses_tau,
        "self.tau set exactly if tau is an argument",
        estimator.tau,
    )
    for bad in (0.0, -1.0, math.nan, math.inf, True, "1") if cls.uses_tau else ():
        try:
            construct(tau=bad)
        except ValueError as error:
            require(
                estimator, str(error) == f"{name}: expected tau > 0, got {bad!r}.", "a one-line refusal", str(error)
            )
        else:
            require(estimator, False, f"tau = {bad!r} to be refused", "an object")
    example_shape(estimator)
    return f"{name}({', '.join(parameters(cls))}), {'unbiased' if estimator.unbiased else 'biased'}"


def check_counts(estimator: Estimator) -> str:
    """Check that at most `n_cost_evals` and at least `min_samples` codes are evaluated."""
    for n_latents, n_categories in shapes(estimator):
        spy = Spy(cubic_cost(example_weights(n_latents, n_categories)))
        run(estimator, example_logits(2, n_latents, estimator.n_outputs(n_categories)), spy)
        count, declared = sum(len(z_SBLK) for z_SBLK in spy.codes), estimator.n_cost_evals(n_latents, n_categories)
        most = f"at most n_cost_evals = {declared} evaluations for L={n_latents}, K={n_categories}"
        require(estimator, count <= declared, most, count)
        require(estimator, count >= estimator.min_samples, f"min_samples = {estimator.min_samples} evaluations", count)
    n_latents, n_categories = example_shape(estimator)
    return f"{estimator.n_cost_evals(n_latents, n_categories)} evaluations at L={n_latents}, K={n_categories}"


def check_black_box(estimator: Estimator) -> str:
    """Check that an estimator that is declared a black box works with a cost without a derivative."""
    if not estimator.black_box:
        return "needs a differentiable cost"

    def cost(z_SBLK: Tensor) -> Tensor:
        with torch.no_grad():
            return cost_for(estimator)(z_SBLK)

    for one, other in zip(
        run(estimator, logits_for(estimator), cost),
        run(estimator, logits_for(estimator), cost_for(estimator)),
        strict=True,
    ):
        require(estimator, torch.allclose(one, other), "the same gradient without a derivative of the cost", one)
    return "values of the cost are enough"


def check_cost_shape(estimator: Estimator) -> str:
    """Check that a cost of the wrong shape is refused with the estimator's name."""
    for wrong in (lambda z_SBLK: z_SBLK.sum((0, -1, -2)), lambda z_SBLK: z_SBLK.sum(-1), lambda z_SBLK: z_SBLK.mean()):
        try:
            run(estimator, logits_for(estimator), wrong)
        except ValueError as error:
            expected = f"{estimator.name}: expected cost of shape (S, B) = ("
            require(estimator, str(error).startswith(expected), f"an error '{expected}…'", str(error))
        else:
            require(estimator, False, "a cost of the wrong shape to be refused", "an estimate")
    return "wrong shapes are refused"
