"""The texts about a grid: its name, question and description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.grid import choices
from harness.grid.choices import Placed
from harness.grid.errors import ErrorList
from harness.grid.yaml_nodes import Node

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '-', '_' and '.', of which the first is a letter or digit"
RESERVED = ("Default", "artifacts", "compare", "gradients", "mlflow.db", "mlruns")
"""Names that MLflow or a results folder uses for something else; a grid may not have them, in whatever capitals."""


def read_texts(tree: Node, entries: Mapping[str, Node], path: Path | None, errors: ErrorList) -> dict[str, str]:
    """Return the texts about a grid. The name is by default that of its file; a grid from a pipe must state one."""
    if path is None and "name" not in entries:
        errors.add(tree.position, "name", "expected a name, since this grid comes through a pipe, got none. Add one.")
    texts = {"name": default_name(path) if path else ""}
    for key in ("name", "question", "description"):
        if key in entries:
            texts[key] = entries[key].value
            if not isinstance(texts[key], str):
                errors.expected(choices.placed(entries[key], key), "text", entries[key].plain())
    if "name" in entries and isinstance(texts["name"], str) and not NAME_PATTERN.fullmatch(texts["name"]):
        errors.expected(choices.placed(entries["name"], "name"), NAME_RULE, texts["name"])
    elif isinstance(texts["name"], str) and is_reserved(texts["name"]):
        hint = "Give the grid another name." if "name" in entries else f"Add name: to {path}, or rename it."
        where = choices.placed(entries["name"], "name") if "name" in entries else Placed(None, tree.position, "name")
        errors.expected(where, f"none of {', '.join(RESERVED)}", texts["name"], hint=hint)
    return texts


def is_reserved(name: str) -> bool:
    """Return whether a results folder or MLflow uses this name for something else."""
    small = name.lower()
    return small in {each.lower() for each in RESERVED} or small.startswith("mlflow.db")


def default_name(path: Path) -> str:
    """Return the name of a grid whose file states none."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:64] or "grid"
