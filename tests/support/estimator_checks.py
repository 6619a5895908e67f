"""Whether an estimator is what it says: the checks of every estimator, and its published formula."""

import torch
from families import NAIVE

from estimators.conformance import CHECKS
from estimators.yardstick import (
    cost_for,
    logits_for,
    run,
)


def failures(estimator):
    """Names of the checks that an estimator fails, the comparison with the naive formula among them."""
    caught = []
    for check in (*CHECKS, equals_naive):
        try:
            check(estimator)
        except (AssertionError, RuntimeError, ValueError):
            caught.append(check.__name__)
    return caught


def equals_naive(estimator):
    """The gradient is that of the published formula, as loops, with the same noise."""
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    for seed in range(8):  # one draw of a few codes is too few: it need not differ under another law
        _, gradient_BLK = run(estimator, logits_BLK, cost, seed)
        expected_BLK = NAIVE[estimator.name](estimator, logits_BLK, cost, seed=seed)
        torch.testing.assert_close(gradient_BLK, expected_BLK)
