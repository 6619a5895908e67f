"""Checks of data, loss, gradient and state: what training and checkpoints rely on."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.tasks.conformance.subject import Subject, drawn, seeded
from harness.tasks.splits import NoData, n_examples, parts
from harness.tasks.task import Loss, total

N_TRIES = 4
"""Training steps in which each parameter must get a gradient."""
LEARNING_RATE = 0.01


def check_data(subject: Subject) -> str:
    """Check that two calls of `data` give the same, with the generator seeded alike, whatever the initial weights."""
    data, again = subject.data, drawn(subject.again(seed=1).task, subject.config)
    if isinstance(data, NoData):
        what_to_do = "It may depend on parameters only."
        subject.require(data == again, "the same data in every call", f"{again}", what_to_do, "data")
        return f"none: an epoch is {data.steps_per_epoch} updates"
    for name in ("train", "validation", "test"):
        if name in data:
            pairs = zip(parts(getattr(data, name)), parts(getattr(again, name)) if name in again else [], strict=True)
            same = all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs)
            what_to_do = (
                "Draw it with the global generators of torch, numpy or Python, which data() finds seeded, or with one"
                " of a fixed seed; the initial weights differ between runs."
            )
            subject.require(same, f"the same {name} data in every call", "other numbers", what_to_do, "data")
    return f"{data.n_train} training and {n_examples(data.test)} test examples, the same in every call"


def check_loss(subject: Subject) -> str:
    """Check that the loss has the declared terms, (B,) or scalars, finite, and one call of each layer's estimator."""
    calls: Counter[str] = Counter()
    hooks = [
        one.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, one in subject.estimators.items()
    ]
    try:
        loss = loss_of(subject)
    finally:
        for hook in hooks:
            hook.remove()
    got = type(loss).__name__
    subject.require(isinstance(loss, Loss), "Loss(terms, control_loss) from loss()", got, "Return Loss({…}).")
    for name in subject.estimators:
        got = f"{calls[name]} calls of that of {name!r}"
        subject.require(calls[name] == 1, "one call of the estimator of each layer", got, "Call estimators[name] once.")
    names, declared = tuple(loss.terms), tuple(subject.task.term_names())
    what_to_do = "Let term_names() return the names of the terms of the loss."
    subject.require(names == declared, f"the terms {', '.join(declared)}", ", ".join(names), what_to_do, "term_names")
    for name, term in loss.terms.items():
        check_numbers(subject, f"the term {name} of the loss", term, "loss")
    noise = [_noise_after(subject, seed) for seed in (0, 1)]
    what_to_do = "Do not call torch.manual_seed: a seed in every call repeats the noise."
    subject.require(not torch.equal(*noise), "noise that goes on", "the same noise in every call", what_to_do)
    return f"terms {', '.join(names)}"


def check_determinism(subject: Subject) -> str:
    """Check that the same seed gives the same loss and the same gradients."""
    results = []
    for own in (subject.again(), subject.again()):
        loss = loss_of(own)
        sum_of_terms = _total(loss)
        gradients = _gradients(own.task, sum_of_terms)
        results.append({"loss": sum_of_terms.detach(), **gradients})
    for name, one in results[0].items():
        same = torch.equal(one, results[1][name])
        got = f"a difference of {(one - results[1][name]).abs().max():.1e}"
        expected = "the same loss" if name == "loss" else f"the same gradient of {name}"
        what_to_do = "Take noise from torch's default generator, which is seeded."
        subject.require(same, f"{expected} from the same seed", got, what_to_do)
    return "the same seed gives the same loss and gradients"


def check_gradient(subject: Subject) -> str:
    """Check that the gradient reaches every parameter in one of a few training steps, and is finite."""
    own = subject.again()
    trained = {name: one for name, one in own.task.named_parameters() if one.requires_grad}
    what_to_do = "Set nn.Parameter or layers in __init__ or build."
    subject.require(bool(trained), "parameters to train", "none", what_to_do, "__init__")
    missing = set(trained)
    for seed in range(N_TRIES):
        gradients = _gradients(own.task, _total(loss_of(own, seed)))
        for name, gradient in gradients.items():
            what_to_do = "Look for log(0), a division by 0 or sqrt(0)."
            subject.require(bool(gradient.isfinite().all()), f"a finite gradient of {name}", "NaN or ∞", what_to_do)
        missing -= {name for name, gradient in gradients.items() if bool((gradient != 0).any())}
        if not missing:
            return f"the gradient reaches every parameter ({len(trained)})"
        _step(own.task, gradients)
    listed = [name for name in trained if name in missing]
    got = f"none at {', '.join(listed[:4])}{f' and {len(listed) - 4} others' if len(listed) > 4 else ''}"
    what_to_do = "Use them in logits or cost without detach, or remove them, or call requires_grad_(False)."
    subject.require(False, "a gradient that reaches every parameter", got, what_to_do)
    return ""


def check_state(subject: Subject) -> str:
    """Check that the state dict has all that training changes: a new task with it has the same loss."""
    old, new = subject.again(), subject.again(seed=1)
    for seed in range(2):
        _step(old.task, _gradients(old.task, _total(loss_of(old, seed))))
    new.task.load_state_dict(old.task.state_dict())
    new = Subject(new.task, copy.deepcopy(old.estimators), old.batch, old.test, old.data, old.params, old.config)
    losses = [_total(loss_of(own, seed=7)) for own in (old, new)]
    what_to_do = "Keep what training changes in parameters or buffers (register_buffer): a checkpoint has no more."
    got = f"{losses[1].item():.6g} and {losses[0].item():.6g}"
    expected = "the same loss from a new task with the state dict"
    subject.require(torch.equal(*losses), expected, got, what_to_do, "__init__")
    return "a new task with the state dict has the same loss"


def loss_of(subject: Subject, seed: int = 0) -> Loss:
    """Return the loss of the batch in training mode, with the noise of a seed."""
    for estimator in subject.estimators.values():
        estimator.train()
    with seeded(seed):
        return subject.task.train().loss(subject.batch, subject.estimators)


def check_numbers(subject: Subject, what: str, value: object, method: str) -> None:
    """Require a finite tensor of floats, (B,) or a scalar."""
    n = n_examples(subject.batch)
    got: object = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    is_right = isinstance(value, Tensor) and (value.ndim == 0 or value.shape == (n,))
    subject.require(is_right, f"{what} of shape (B,) = ({n},), or a scalar", got, "Keep one number an example.", method)
    assert isinstance(value, Tensor)  # noqa: S101
    what_to_do = "Look for log(0), a division by 0 or an empty mean."
    subject.require(bool(value.isfinite().all()), f"{what} finite", "NaN or ∞", what_to_do, method)


def _total(loss: Loss) -> Tensor:
    return total([term.mean() for term in loss.terms.values()])


def _gradients(task: nn.Module, loss: Tensor) -> Mapping[str, Tensor]:
    """Return the gradients of the parameters that a loss reaches, by name."""
    trained = {name: one for name, one in task.named_parameters() if one.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}


@torch.no_grad()
def _step(task: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Change each parameter a little, against its gradient: the first step of Adam. Loading that takes seconds."""
    for name, one in task.named_parameters():
        if name in gradients:
            one.sub_(LEARNING_RATE * gradients[name].sign())


def _noise_after(subject: Subject, seed: int) -> Tensor:
    with seeded(seed):
        subject.task.loss(subject.batch, subject.estimators)
        return torch.get_rng_state()
