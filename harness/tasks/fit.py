"""Which estimators can train which task."""

from collections.abc import Iterable

from estimators import Estimator
from harness.tasks.task import Task


def reason_to_skip(task: type[Task], estimator: Estimator, shapes: Iterable[tuple[int, int]]) -> str:
    """Return why an estimator cannot train a task whose layers have these (L, K); empty if it can."""
    name, shapes = f"{estimator.name} on {task.name}", list(shapes)
    if task.needs_one_hot and (estimator.relaxes or estimator.evaluates_soft):
        return f"{name}: the cost needs one-hot codes, and the estimator evaluates it on soft ones"
    if task.black_box and not estimator.black_box:
        return f"{name}: the cost has no derivative in the code, and the estimator needs one"
    if estimator.objective == "bound" and not task.has_bound:
        return f"{name}: the estimator trains an importance-weighted bound, and the task has none"
    if not task.takes_outputs and any(estimator.n_outputs(n) != n for _, n in shapes):
        return f"{name}: the estimator takes another number of logits for each latent than its classes"
    for shape in shapes:
        try:
            estimator.check_shape(*shape)
        except ValueError as error:
            return f"{name}: {str(error).removeprefix(f'{estimator.name}: ')}"
    return ""
