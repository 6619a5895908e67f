"""Reports of stored runs. In a notebook: `from reports import load, tables, figures`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.page import figures
    from reports.page import quality_tables as tables
    from reports.store.load import load
    from reports.store.log_export import to_csv
    from reports.store.logs import from_csv, from_frame

__all__ = ["figures", "from_csv", "from_frame", "load", "tables", "to_csv"]

_MODULES = {"figures": "reports.page.figures", "tables": "reports.page.quality_tables"}
_FUNCTIONS = {
    "load": "reports.store.load",
    "from_csv": "reports.store.logs",
    "from_frame": "reports.store.logs",
    "to_csv": "reports.store.log_export",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, then: pandas takes a second, which the harness need not wait for."""
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'reports' has no attribute {name!r}")
