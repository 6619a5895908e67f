"""The checks, in the order in which they run.

Each takes an estimator, returns in words what it found, and raises AssertionError if the estimator is wrong.
"""

from collections.abc import Callable
from functools import partial

import torch

from estimators.base import Estimator
from estimators.conformance.codes import check_codes, check_extremes, check_shapes_and_dtypes
from estimators.conformance.declaration import check_black_box, check_cost_shape, check_counts, check_declaration
from estimators.conformance.gradient import (
    check_bias,
    check_constant_cost,
    check_decoder_gradient,
    check_gradient,
    check_logit_gradient,
)
from estimators.conformance.independence import (
    check_code_follows_logits,
    check_examples,
    check_independence,
    check_logits_unchanged,
)
from estimators.conformance.repeatability import check_determinism, check_state

Check = Callable[[Estimator], str]

CHECKS: tuple[Check, ...] = (
    check_declaration,
    check_shapes_and_dtypes,
    check_codes,
    check_logit_gradient,
    check_decoder_gradient,
    check_constant_cost,
    check_determinism,
    check_state,
    check_counts,
    check_black_box,
    check_cost_shape,
    check_extremes,
    check_bias,
    check_logits_unchanged,
    check_independence,
    check_code_follows_logits,
)

SINGLE = (torch.float32,)
"""The dtype of runs."""
QUICK: tuple[Callable[..., str], ...] = (
    partial(check_shapes_and_dtypes, dtypes=SINGLE),
    partial(check_codes, dtypes=SINGLE, n_examples=64),
    partial(check_gradient, dtype=torch.float32),
    partial(check_determinism, dtype=torch.float32),
    partial(check_logits_unchanged, dtype=torch.float32),
    partial(check_examples, dtype=torch.float32),
    partial(check_code_follows_logits, dtype=torch.float32),
)
"""The checks of a plug-in before a run starts, a few calls each. They take an estimator and `model`, the latents and
classes of the run."""


def check_all(estimator: Estimator) -> list[str]:
    """Run every check and return what each found. Raises AssertionError at the first that fails."""
    return [f"{check.__name__}: {check(estimator)}" for check in CHECKS]
