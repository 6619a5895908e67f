"""Errors of plug-ins, explained to their authors in one line with the innermost line of their file."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from harness.plugins.registry import source_of

if TYPE_CHECKING:
    from estimators import Estimator

_NO_GRADIENT = (
    "does not require grad and does not have a grad_fn",
    "appears to not have been used in the graph",
    "One of the differentiated Tensors does not require grad",
)
_IN_PLACE = (
    "is being used in an in-place operation",
    "modified by an inplace operation",
    "being modified inplace",
    "modified inplace",
)


def in_one_line(error: Exception, cls: type[Estimator] | None) -> str:
    """Return what went wrong and where: in the file of the plug-in, or where it was raised if no plug-in did it.

    `cls` is the class of the estimator that was running, None if none is known.
    """
    plugin = cls if cls is not None and source_of(cls) is not None else None
    line = None if plugin is None else line_of(error, plugin)
    if line is None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{explained(error, plugin)} ({line})"


def explained(error: Exception, plugin: type[Estimator] | None) -> str:
    """Return the first line of an error. Torch's texts about gradients are explained to the author of a plug-in."""
    text = str(error)
    if plugin is not None and any(part in text for part in _NO_GRADIENT):
        return (
            f"{plugin.name}: expected a gradient that reaches the logits, got a cost that depends on nothing that is"
            " trained. Do not detach the code or compute it under no_grad: return replace_gradient(one_hot, soft)."
        )
    if plugin is not None and any(part in text for part in _IN_PLACE):
        return (
            f"{plugin.name}: expected tensors that autograd needs to stay as they are, got one that was changed in"
            " place. Write x = x + y in place of x += y, x.add_(y) or x[…] = y."
        )
    return next(iter(f"{type(error).__name__}: {text}".splitlines()))


def line_of(error: BaseException, plugin: type[Estimator]) -> str | None:
    """Return `file:line` of the innermost line of the plug-in's file that was involved in an error.

    If none was, as in a backward pass, it is the line that defines the estimator's own method.
    """
    path = file_of(plugin)
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == path and frame.lineno), None)
    if path and line:
        return f"{Path(path).name}:{line}"
    return line_of(error.__cause__, plugin) if error.__cause__ is not None else defined_at(plugin)


def file_of(plugin: type[Estimator]) -> str | None:
    """Return the file that defines a class; None if there is none."""
    try:
        return inspect.getfile(plugin)
    except (OSError, TypeError):
        return None


def defined_at(plugin: type[Estimator]) -> str | None:
    """Return `file:line` of the method that a plug-in defines, or of its class; None if there is no file."""
    methods = (vars(plugin).get(name) for name in ("sample", "advantage", "draw", "forward"))
    for item in (*filter(None, methods), plugin):
        try:
            return f"{Path(inspect.getfile(plugin)).name}:{inspect.getsourcelines(item)[1]}"
        except (OSError, TypeError):
            continue
    return None
