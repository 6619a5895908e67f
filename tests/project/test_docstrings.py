"""Docstrings say which errors a function raises. Ruff's rules `D` check the rest."""

import ast
from collections.abc import Iterator
from pathlib import Path

from paths import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(path: Path) -> Iterator[tuple[str, Function, str]]:
    """Yield name, function and the text that documents it: for `__init__` that is the class's."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            about = ast.get_docstring(node) or ""
            for inner in node.body:
                if isinstance(inner, Function) and (inner.name == "__init__" or not inner.name.startswith("_")):
                    yield f"{node.name}.{inner.name}", inner, f"{about}\n{ast.get_docstring(inner) or ''}"


def raised(function: Function) -> set[str]:
    """Return the names of the exceptions that a function raises itself, those of its inner functions left out.

    `Refused` is what every command raises for its options; the docstrings of commands are their help.
    """
    names, stack = set(), list(function.body)
    while stack:
        node = stack.pop()
        if isinstance(node, Function | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            names.add(node.exc.func.id)
        stack.extend(ast.iter_child_nodes(node))
    return {name for name in names if name[:1].isupper()} - {"AssertionError", "NotImplementedError", "Refused"}


def test_a_public_function_names_the_errors_that_it_raises() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}: {', '.join(sorted(absent))}"
        for package in ("estimators", "harness", "reports")
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, function, text in public_functions(path)
        if (absent := {error for error in raised(function) if error not in text})
    ]
    assert missing == []
