"""Whether an estimator is what it says: the checks of every estimator, and its published formula."""

import torch
from families import NAIVE

from estimators.conformance import CHECKS
from estimators.reference_problem import cost_for, logits_for, run


def first_failure(estimator):
    """Return the name of a check that the estimator fails, or None: its published formula first, which tells most."""
    for check in (equals_naive, *CHECKS):
        try:
            check(estimator)
        except (AssertionError, RuntimeError, ValueError):
            return check.__name__
    return None


def equals_naive(estimator):
    """The gradient is that of the published formula, as loops, with the same noise."""
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    for seed in range(8):  # one draw of a few codes is too few: it need not differ under another law
        _, gradient_BLK = run(estimator, logits_BLK, cost, seed)
        expected_BLK = NAIVE[estimator.name](estimator, logits_BLK, cost, seed=seed)
        torch.testing.assert_close(gradient_BLK, expected_BLK)
