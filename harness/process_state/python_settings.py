"""The global settings of Python, numpy and the operating system."""

import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from harness.process_state.setting import Setting


def _raising_filters() -> tuple[Any, ...]:
    """Return the filters that turn warnings into errors. Others only change what is printed; libraries add them."""
    return tuple(each for each in warnings.filters if each[0] == "error")


def _drop_raising_filters(before: tuple[Any, ...]) -> None:
    warnings.filters[:] = [  # type: ignore[index]
        each for each in warnings.filters if each[0] != "error" or each in before
    ]


_MLFLOW = tuple(f"MLFLOW_{word}_" for word in ("ALLOW", "DISABLE", "ENABLE", "HTTP", "SUPPRESS"))
_SET_BY_HARNESS = ("TORCH", "_TORCH", "TRITON", "GIT_PYTHON_", *_MLFLOW)
"""Prefixes of the variables that torch's compiler and `reports.contract.mlflow_environment` set themselves."""


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_SET_BY_HARNESS)}


_BY_TORCH = ("ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "GOMP_", "KMP_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "PYTORCH_")
_READ = (*_BY_TORCH, "HARNESS_", "MLFLOW_", "MPL", "OPENBLAS_", "XDG_")
"""Prefixes of the variables that the harness and its libraries read. These are removed if they were added."""


def _without_own(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return the new variables without those that foreign code added for itself only."""
    return {name: value for name, value in new.items() if name in old or name.startswith(_READ)}


def _set_environment(before: Mapping[str, str]) -> None:
    for name in _without_own(before, _environment()).keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _folder() -> str | None:
    with suppress(OSError):  # it was removed
        return os.getcwd()
    return None


def _go_to(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _handlers() -> tuple[Any, ...]:
    return tuple(signal.getsignal(number) for number in _SIGNALS)


def _set_handlers(before: tuple[Any, ...]) -> None:
    if threading.current_thread() is threading.main_thread():  # no other thread may do it
        for number, handler in zip(_SIGNALS, before, strict=True):
            if handler is not None:
                signal.signal(number, handler)


def _umask() -> int | None:
    """Return the umask, or None on systems that cannot tell it without changing it."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as lines:
        return next((int(line.split()[1], 8) for line in lines if line.startswith("Umask:")), None)
    return None


def _set_umask(value: int | None) -> None:
    if value is not None:
        os.umask(value)


PYTHON_SETTINGS: tuple[Setting, ...] = (
    Setting("numpy's treatment of errors", np.geterr, lambda value: np.seterr(**value)),
    Setting("which warnings are errors", _raising_filters, _drop_raising_filters),
    Setting("the environment variables", _environment, _set_environment, compared=_without_own),
    Setting("the current folder", _folder, _go_to, shows=True),
    Setting("the umask", _umask, _set_umask),
    Setting("the handlers of signals", _handlers, _set_handlers),
    Setting("the collection of garbage", gc.isenabled, lambda on: gc.enable() if on else gc.disable(), shows=True),
    Setting("the level up to which logging is off", lambda: logging.root.manager.disable, logging.disable, shows=True),
)
