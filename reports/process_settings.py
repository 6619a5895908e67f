"""Settings of the process that a report must not depend on: put aside while it is made, and restored afterwards.

matplotlib's settings are in ``reports.page.svg``: every figure is drawn from its defaults and ours.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_PANDAS = {
    "display.max_colwidth": None,
    "display.max_columns": None,
    "display.max_rows": None,
    "display.width": None,
    "display.float_format": None,
    "display.colheader_justify": "right",
    "display.unicode.east_asian_width": False,
    "styler.format.escape": None,
    "styler.render.max_rows": None,
    "styler.render.max_columns": None,
    "styler.html.mathjax": True,
}


@contextmanager
def default_settings() -> Iterator[None]:
    """Use the default settings of warnings, numpy and pandas within this context, which is also a decorator."""
    options: list[Any] = [part for pair in _PANDAS.items() for part in pair]
    with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"), pd.option_context(*options):
        if any(each[0] == "error" for each in warnings.filters):
            warnings.simplefilter("default")  # a warning of a library does not end a report
        yield


def import_matplotlib() -> None:
    """Import matplotlib without the user's configuration. Only for commands, which own their process.

    Otherwise it stops at an unknown backend or setting, and prints a message about a folder that it cannot write to.
    """
    if "matplotlib" in sys.modules:
        return
    log = logging.getLogger("matplotlib")
    level = log.level
    kept = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    os.environ["MATPLOTLIBRC"] = os.devnull
    log.setLevel(logging.ERROR)
    try:
        with _away_from("matplotlibrc"):
            importlib.import_module("matplotlib.font_manager")  # it looks for a folder to write to
    finally:
        log.setLevel(level)
        del os.environ["MATPLOTLIBRC"]
        os.environ.update({name: value for name, value in kept.items() if value is not None})


@contextmanager
def _away_from(name: str) -> Iterator[None]:
    """Change to an empty folder if the current one has such a file: matplotlib looks there first."""
    if not Path(name).exists():
        yield
        return
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        yield
