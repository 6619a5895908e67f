"""Reports of stored runs. In a notebook: `from reports import load, tables, figures`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.page import figures, tables
    from reports.store.load import load

__all__ = ["figures", "load", "tables"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, then: pandas takes a second, which the harness need not wait for."""
    if name == "load":
        return import_module("reports.store.load").load
    if name in ("tables", "figures"):
        return import_module(f"reports.page.{name}")
    raise AttributeError(f"module 'reports' has no attribute {name!r}")
