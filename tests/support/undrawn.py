"""Figures that are made but not drawn. Drawing takes more than half of the time of a report."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure


@contextmanager
def figures_undrawn() -> Iterator[None]:
    """Save an empty picture for each figure, for tests of what a report says in words and tables."""

    def save(figure: Figure, file: Any, **options: Any) -> None:
        file.write('<svg viewBox="0 0 1 1"></svg>' if hasattr(file, "encoding") else b"")

    with patch.object(Figure, "savefig", save):
        yield
