"""Reports of stored runs. In a notebook: `from reports import load, tables, figures`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.page import figures
    from reports.page import quality_tables as tables
    from reports.store.load import load

__all__ = ["figures", "load", "tables"]

_MODULES = {"figures": "reports.page.figures", "tables": "reports.page.quality_tables"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, then: pandas takes a second, which the harness need not wait for."""
    if name == "load":
        return import_module("reports.store.load").load
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'reports' has no attribute {name!r}")
