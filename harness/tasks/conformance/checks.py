"""The checks of a task, in the order in which they run.

Each takes a subject, returns in words what it found, and raises ConformanceError if the task breaks a rule.
"""

from collections.abc import Callable

from harness.tasks.conformance.cost import check_cost, check_independence, check_logits, check_soft_codes
from harness.tasks.conformance.measures import check_directions, check_measures
from harness.tasks.conformance.subject import Subject
from harness.tasks.conformance.training import (
    check_data,
    check_determinism,
    check_gradient,
    check_loss,
    check_state,
)

Check = Callable[[Subject], str]

_FORM: tuple[Check, ...] = (
    check_logits,
    check_cost,
    check_independence,
    check_soft_codes,
    check_measures,
)
QUICK: tuple[Check, ...] = (*_FORM, check_loss, check_gradient, check_directions)
"""The checks of a plug-in before a sweep, in the order in which they run while there is time."""
CHECKS: tuple[Check, ...] = (check_data, *QUICK, check_determinism, check_state)
"""All of them."""
OF_THE_TASK: frozenset[Check] = frozenset({*_FORM, check_data, check_directions})
"""Those in which the estimator plays no part: they run once."""
