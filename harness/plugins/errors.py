"""Errors of plug-ins, explained to their authors in one line with the innermost line of their file."""

from __future__ import annotations

import inspect
import sys
import traceback
from pathlib import Path

from harness.plugins.file_import import FILES
from harness.plugins.identity import source_of

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


def in_one_line(error: Exception, *classes: type | None) -> str:
    """Return what went wrong and where: in the user's own code, or where it was raised if no plug-in did it.

    `classes` are those of the estimator and the task that were running, as far as they are known.
    """
    plugins = [cls for cls in classes if cls is not None and source_of(cls) is not None]
    found = [(cls, line) for cls in plugins if (line := _line_in(error, cls))]
    if plugins and not found:  # as in a backward pass
        plugins.sort(key=lambda cls: not str(error).startswith(f"{_name(cls)}:"))
        found = [(cls, line) for cls in plugins[:1] if (line := defined_at(cls))]
    if not found:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{explained(error, None)} ({Path(frame.filename).name}:{frame.lineno})"
    plugin, line = found[0]
    return f"{explained(error, plugin)} ({line})"


def explained(error: Exception, plugin: type | None) -> str:
    """Return the first line of an error. What torch and Python say is explained to the author of a plug-in."""
    text = str(error)
    if plugin is not None and any(part in text for part in _NO_GRADIENT):
        return f"{_name(plugin)}: {_without_gradient(plugin)}"
    if plugin is not None and any(part in text for part in _IN_PLACE):
        return (
            f"{_name(plugin)}: expected tensors that autograd needs to stay as they are, got one that was changed in"
            " place. Write x = x + y in place of x += y, x.add_(y) or x[…] = y."
        )
    if plugin is not None and isinstance(error, FileNotFoundError) and error.filename is not None:
        return (
            f"{_name(plugin)}: expected the file {error.filename}, got none in {Path.cwd()}. Name a file beside the"
            " plug-in by Path(__file__).parent."
        )
    return next(iter(f"{type(error).__name__}: {text}".splitlines()))


def _without_gradient(plugin: type) -> str:
    from estimators import Estimator

    if issubclass(plugin, Estimator):
        return (
            "expected a gradient that reaches the logits, got a cost that depends on nothing that is trained. Do not"
            " detach the code or compute it under no_grad: return replace_gradient(one_hot, soft)."
        )
    return (
        "expected a loss with a gradient, got one that depends on nothing that is trained. Do not detach logits and"
        " cost or compute them under no_grad; if the cost has no derivative in the code, declare black_box = True."
    )


def line_of(error: BaseException, plugin: type) -> str | None:
    """Return `file:line` of the innermost line of the user's own code that was involved in an error.

    If none was, as in a backward pass, it is the line that defines the class's own method.
    """
    return _line_in(error, plugin) or defined_at(plugin)


def _line_in(error: BaseException, plugin: type) -> str | None:
    files = {file_of(plugin), *getattr(sys.modules.get(plugin.__module__), FILES, ())} - {None}
    frames = traceback.extract_tb(error.__traceback__)
    found = next((frame for frame in reversed(frames) if frame.filename in files and frame.lineno), None)
    if found is not None:
        return f"{Path(found.filename).name}:{found.lineno}"
    return _line_in(error.__cause__, plugin) if error.__cause__ is not None else None


def file_of(plugin: type) -> str | None:
    """Return the file that defines a class; None if there is none."""
    try:
        return inspect.getfile(plugin)
    except (OSError, TypeError):
        return None


_METHODS = ("sample", "advantage", "draw", "forward", "loss", "cost", "logits")


def defined_at(plugin: type, method: str | None = None) -> str | None:
    """Return `file:line` of the method that a plug-in defines, or of its class; None if there is no file."""
    methods = (vars(plugin).get(name) for name in ([method] if method else []) + list(_METHODS))
    for item in (*filter(None, methods), plugin):
        try:
            return f"{Path(inspect.getfile(plugin)).name}:{inspect.getsourcelines(item)[1]}"
        except (OSError, TypeError):
            continue
    return None


def _name(plugin: type) -> str:
    return str(getattr(plugin, "name", plugin.__name__))
