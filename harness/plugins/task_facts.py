"""Facts that tasks declare, for people."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import did_you_mean
from harness.measures import VAE_NAME
from harness.plugins.registry import load_registry

if TYPE_CHECKING:
    from harness.tasks.task import Task


def rows(plugins: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Return name, title, first measure with its direction, cost and parameters of every task."""
    return [_row(cls) for cls in load_registry(plugins).tasks.values()]


def _row(cls: type[Task]) -> dict[str, Any]:
    from estimators import parameters

    first = cls.measures[0]
    return {
        "name": cls.name,
        "title": cls.title,
        "ranks by": f"{first.shown} ({first.better} is better)",
        "cost": _cost(cls),
        "parameters": parameters(cls),
        "reference": cls.reference,
    }


def _cost(cls: type[Task]) -> str:
    if cls.black_box:
        return "black box"
    return "one-hot codes only" if cls.needs_one_hot else "differentiable"


def explain(name: str, plugins: Sequence[Path] = ()) -> str:
    """Return docstring, measures and parameters of a task, as paragraphs and labelled lines.

    Raises ValueError with a one-line message for an unknown name.
    """
    from estimators import parameters

    tasks = load_registry(plugins).tasks
    if name not in tasks:
        hint = did_you_mean(name, tasks) or f"Known: {', '.join(tasks)}."
        raise ValueError(f"list: expected one of {len(tasks)} names, got {name!r}. {hint}")
    cls = tasks[name]
    given = ", ".join(f"{key}={default}" for key, default in parameters(cls).items())
    where = "the sections data and model of a grid" if name == VAE_NAME else f"task: {{name: {name}, …}}"
    lines = {"measures": "; ".join(map(_measure, cls.measures))}
    lines |= {"cost": _cost(cls), "parameters": given or "none", "in a grid": where}
    lines["data"] = "the images of the section data" if cls.uses_images else "its own"
    indent = max(map(len, lines)) + 2
    return f"{name}\n\n{inspect.getdoc(cls) or cls.title}\n\n" + "\n".join(
        f"{k:<{indent}}{v}" for k, v in lines.items()
    )


def _measure(measure: Any) -> str:
    unit = f", {measure.unit}" if measure.unit else ""
    return f"{measure.name}: {measure.shown}{unit} ({measure.better} is better)"
