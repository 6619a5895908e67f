"""Checks of the measures of a task: all there, of the right form, finite, and of the direction that is declared."""

import torch
from torch import Tensor

from harness.measures import Measure
from harness.tasks.conformance.cost import codes, cost_of
from harness.tasks.conformance.subject import Subject, seeded
from harness.tasks.conformance.training import check_numbers
from harness.tasks.draws import CodeDraws
from harness.tasks.splits import n_examples, parts
from harness.tasks.task import OneLayerTask

N_CODES = 64
CLEARLY = 0.5
"""A rank correlation of this size with the wrong sign is worth a warning."""


def check_measures(subject: Subject) -> str:
    """Check that an evaluation returns the terms of the loss and every declared measure, finite, (B,) or scalars."""
    task, draw = subject.task, CodeDraws(subject.estimators, 2, 2)
    own = Subject(task, subject.estimators, subject.test, subject.test, subject.data, subject.params, subject.config)
    versions = [one._version for one in parts(subject.test)]
    with torch.no_grad(), seeded(0):
        task.eval()
        found = task.evaluate(subject.test, draw)
        whole = task.test_measures(subject.test, draw)
    is_kept = [one._version for one in parts(subject.test)] == versions
    what_to_do = "Copy it first: later evaluations and runs use the same numbers."
    subject.require(is_kept, "an evaluation that leaves its batch as it is", "changed numbers", what_to_do, "evaluate")
    what_to_do = "Return it from evaluate, as loss returns it."
    for name in task.term_names():
        expected = f"the term {name} of the loss from evaluate()"
        subject.require(name in found, expected, ", ".join(found), what_to_do, "evaluate")
    method = "measure" if isinstance(task, OneLayerTask) else "evaluate"
    for measure in task.measures:
        name = measure.name
        there = name in found or name in whole or name == task.loss_name
        got = f"only {', '.join([*found, *whole])}"
        subject.require(there, f"the measure {name} from {method}()", got, f"Return {{{name!r}: …}}.", method)
    for name, value in found.items():
        check_numbers(own, f"the measure {name}", value, method)
    for name, number in whole.items():
        is_right = isinstance(number, float | int) and number == number and abs(number) != float("inf")
        expected = f"the measure {name} as a finite number"
        subject.require(is_right, expected, repr(number), "Return a float.", "test_measures")
    names = ", ".join(measure.name for measure in task.measures)
    return f"{names}: there and finite"


def check_directions(subject: Subject) -> str:
    """Compare measures with the cost over random codes; add a warning where the declared direction is contradicted."""
    task = subject.task
    for measure in task.measures:
        if measure.name == task.loss_name and measure.better == "higher":
            subject.warnings.append(_warning(subject, measure, "the loss, which training makes lower"))
    if not isinstance(task, OneLayerTask):
        return "does not apply: the task writes its own loss"
    z_SBLK = codes(subject, N_CODES)
    with torch.no_grad(), seeded(0):
        cost_SB = cost_of(subject, z_SBLK)
        task.eval()
        found = [task.measure(subject.batch, z_BLK) for z_BLK in z_SBLK]
    compared = []
    for measure in task.measures:
        values = [each[measure.name] for each in found if measure.name in each]
        if len(values) < N_CODES or values[0].shape != (n_examples(subject.batch),):
            continue
        sign = 1 if measure.better == "lower" else -1
        agreement = sign * rank_correlation(torch.stack(values).float(), cost_SB)
        compared.append(f"{measure.name} {agreement:+.2f}")
        if agreement < -CLEARLY:
            got = f"a measure whose rank correlation with the cost over random codes is {sign * agreement:+.2f}"
            subject.warnings.append(_warning(subject, measure, got))
    return f"agreement with the cost over random codes: {', '.join(compared)}" if compared else "nothing to compare"


def _warning(subject: Subject, measure: Measure, got: str) -> str:
    return (
        f"{subject.task.name}: the measure {measure.name} is declared better={measure.better!r}, but is {got}. If"
        " that is intended, nothing needs to be done."
    )


def rank_correlation(one_SB: Tensor, other_SB: Tensor) -> float:
    """Return Spearman's rank correlation over the samples, the mean over examples in which neither is constant.

    Equal numbers have their mean rank. 0 if there is no such example.
    """
    ranks = [_ranks(each_SB.double()) for each_SB in (one_SB, other_SB)]
    x_SB, y_SB = (rank_SB - rank_SB.mean(0) for rank_SB in ranks)
    norm_B = (x_SB.square().sum(0) * y_SB.square().sum(0)).sqrt()
    found_B = ((x_SB * y_SB).sum(0) / norm_B)[norm_B > 0]
    return found_B.mean().item() if len(found_B) else 0.0


def _ranks(value_SB: Tensor) -> Tensor:
    """Return the mean rank of each number among those of its column."""
    smaller_SB = (value_SB.unsqueeze(0) < value_SB.unsqueeze(1)).sum(1)
    equal_SB = (value_SB.unsqueeze(0) == value_SB.unsqueeze(1)).sum(1)
    return smaller_SB + (equal_SB - 1) / 2
