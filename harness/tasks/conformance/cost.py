"""Checks of the logits and the cost of a task with one layer.

Letters: S samples, B examples, L latents, K classes.
"""

import copy

import torch
from torch import Tensor

from harness.tasks.codes import one_hot_samples
from harness.tasks.conformance.subject import Subject, seeded
from harness.tasks.splits import n_examples
from harness.tasks.task import LAYER, OneLayerTask

N_SAMPLES = 3
NUDGE = 0.01
TOLERANCE = 1e-4
"""Differences that count as rounding, as a share of the largest number."""
ALONE = (
    "Compute it from z_SBLK without a mean, a sum, or batch normalisation over the first two dimensions: the cost of a"
    " code is a number of its own"
)


def check_logits(subject: Subject) -> str:
    """Check that logits have shape (B, L, K), are floating, finite, and depend on what is trained."""
    task = subject.task
    if not isinstance(task, OneLayerTask):
        return "does not apply: the task writes its own loss"
    with seeded(0):
        logits = task.train().logits(subject.batch)
    n_outputs = subject.estimators[LAYER].n_outputs(task.n_categories)
    shape = (n_examples(subject.batch), task.n_latents, n_outputs)
    got: object = type(logits).__name__
    is_tensor = isinstance(logits, Tensor)
    if is_tensor:
        got = f"{tuple(logits.shape)}"
    subject.require(
        is_tensor and logits.shape == shape,
        f"logits of shape (B, L, K) = {shape}",
        got,
        "B is the length of the batch, L is self.n_latents, K is self.n_categories.",
        "logits",
    )
    subject.require(
        logits.is_floating_point(), "logits of floating point", logits.dtype, "Return logits.float().", "logits"
    )
    allowed_BLK = logits != -torch.inf
    is_right = bool((logits.isfinite() | ~allowed_BLK).all()) and bool(allowed_BLK.any(-1).all())
    expected = "finite logits, or −∞ for a class that is forbidden, but not for all of a latent"
    subject.require(is_right, expected, "others", "Look for log(0) or a division by 0.", "logits")
    subject.require(
        logits.requires_grad,
        "logits with a gradient",
        "logits that depend on nothing that is trained",
        "Compute them from the parameters of the task, without detach and no_grad.",
        "logits",
    )
    return f"logits of shape {shape}"


def check_cost(subject: Subject) -> str:
    """Check that the cost of one-hot codes has shape (S, B), is floating and finite, for one sample and for several."""
    if not isinstance(subject.task, OneLayerTask):
        return "does not apply: the task writes its own loss"
    for n_samples in (1, N_SAMPLES):
        z_SBLK = codes(subject, n_samples)
        cost = cost_of(subject, z_SBLK)
        shape = tuple(z_SBLK.shape[:2])
        got = f"{tuple(cost.shape)}" if isinstance(cost, Tensor) else type(cost).__name__
        subject.require(
            isinstance(cost, Tensor) and cost.shape == shape,
            f"a cost of shape (S, B) = {shape} for codes (S, B, L, K) = {tuple(z_SBLK.shape)}",
            got,
            "Sum over latents and outputs, and keep samples and examples.",
            "cost",
        )
        subject.require(
            cost.is_floating_point(), "a cost of floating point", cost.dtype, "Return cost_SB.float().", "cost"
        )
        what_to_do = "Clamp what log or division gets."
        subject.require(bool(cost.isfinite().all()), "a finite cost of one-hot codes", "NaN or ∞", what_to_do, "cost")
    return f"a finite cost of shape (S, B), also for S = {N_SAMPLES}"


def check_independence(subject: Subject) -> str:
    """Check that the code of a sample of an example changes its own cost alone."""
    if not isinstance(subject.task, OneLayerTask):
        return "does not apply: the task writes its own loss"
    z_SBLK, other_SBLK = codes(subject, N_SAMPLES), codes(subject, N_SAMPLES, seed=1)
    before_SB = cost_of(subject, z_SBLK)
    scale = before_SB.abs().max().item() or 1.0
    n_examples_ = z_SBLK.shape[1]
    for what, index in (("sample", (0, slice(None))), ("example", (slice(None), 0)), ("code", (N_SAMPLES - 1, -1))):
        if what == "example" and n_examples_ < 2:
            continue
        changed_SBLK = z_SBLK.clone()
        changed_SBLK[index] = other_SBLK[index]
        differs_SB = (cost_of(subject, changed_SBLK) - before_SB).abs() > TOLERANCE * scale
        differs_SB[index] = False
        got = "a cost that changes with the code of another " + ("sample" if what == "code" else what)
        expected = "the cost of each sample of each example by its own code alone"
        subject.require(not bool(differs_SB.any()), expected, got, f"{ALONE}.", "cost")
    return "each code changes its own cost alone"


def check_soft_codes(subject: Subject) -> str:
    """Check that the cost is defined and has a derivative on soft codes, unless the task declares that it has none."""
    task = subject.task
    if not isinstance(task, OneLayerTask):
        return "does not apply: the task writes its own loss"
    one_hot_SBLK = codes(subject, N_SAMPLES)
    soft_SBLK = 0.5 * one_hot_SBLK + 0.5 / one_hot_SBLK.shape[-1]
    found = []
    if not task.needs_one_hot:
        declare = "Declare needs_one_hot = True, so that estimators with soft codes are skipped, or change the cost."
        cost_of(subject, one_hot_SBLK)  # what fails here too has nothing to do with soft codes
        try:
            cost_SB = cost_of(subject, soft_SBLK)
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            subject.require(False, "a cost that is defined on soft codes", got, declare, "cost")
            raise
        finite = bool(cost_SB.isfinite().all())
        subject.require(finite, "a finite cost of soft codes", "NaN or ∞", declare, "cost")
        found.append("defined on soft codes")
    if not task.black_box:
        slope = _slope(subject, one_hot_SBLK if task.needs_one_hot else soft_SBLK)
        declare = "Declare black_box = True, so that estimators that need a derivative are skipped, or change the cost."
        expected = "a cost with a derivative in the code"
        subject.require(slope is not None, expected, "none", declare, "cost")
        assert slope is not None  # noqa: S101
        subject.require(bool(slope.isfinite().all()), expected, "NaN or ∞", declare, "cost")
        subject.require(bool((slope != 0).any()), expected, "zeros", declare, "cost")
        found.append("has a derivative in the code")
    return ", ".join(found) or "needs one-hot codes and is a black box, as declared"


def _slope(subject: Subject, z_SBLK: Tensor) -> Tensor | None:
    """Return the derivative of the cost in the code; None if there is none.

    The parameters are a little off their initial values, with which a last layer of zeros would hide it.
    """
    own = subject.again()
    with torch.no_grad(), seeded(1):
        for parameter in own.task.parameters():
            parameter.add_(NUDGE * torch.randn_like(parameter))
    leaf_SBLK = z_SBLK.clone().requires_grad_()
    cost_SB = cost_of(own, leaf_SBLK)
    if not cost_SB.requires_grad:
        return None
    return torch.autograd.grad(cost_SB.sum(), leaf_SBLK, allow_unused=True)[0]


def codes(subject: Subject, n_samples: int, seed: int = 0) -> Tensor:
    """Return one-hot codes z_SBLK, uniform over the classes that the logits allow."""
    task = subject.task
    assert isinstance(task, OneLayerTask)  # noqa: S101
    with torch.no_grad(), seeded(seed):
        logits_BLK = subject.estimators[LAYER].class_logits(task.logits(subject.batch))
        return one_hot_samples(
            torch.zeros_like(logits_BLK).masked_fill(logits_BLK == -torch.inf, -torch.inf), n_samples
        )


def cost_of(subject: Subject, z_SBLK: Tensor) -> Tensor:
    """Return the cost of codes in training mode, with the same noise and from the same state each time."""
    task = copy.deepcopy(subject.task)
    assert isinstance(task, OneLayerTask)  # noqa: S101
    with seeded(0):
        found: Tensor = task.train().cost(subject.batch)(z_SBLK)
    return found.detach() if isinstance(found, Tensor) and not z_SBLK.requires_grad else found
