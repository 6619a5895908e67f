"""Reports of stored runs. In a notebook: `from reports import load, tables, figures`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.stored import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is asked for: with pandas it takes a second, which the harness need not wait for."""
    if name != "load":
        raise AttributeError(f"module 'reports' has no attribute {name!r}")
    from reports.stored import load

    return load
