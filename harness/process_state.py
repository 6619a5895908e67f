"""What is global in a process and changes numbers, or stops runs: read, compared and put back around foreign code.

A plug-in may set torch's default dtype or its number of threads, as notebooks do. Every run starts from the state that
the harness set, and so do the other estimators: what a plug-in changed is put back, and named in one line.

What foreign code adds for itself and nobody else reads stays: an environment variable of its own.

Not looked at: functions that were replaced in a module, `sys.path` and `sys.modules`, random generators (each run
seeds torch's own), locale, recursion limit, settings of compilers, interop threads, function modes and hooks of saved
tensors that were entered and not left. docs/add-an-estimator.md says so.
"""

import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from harness.devices import flushes_denormals

Snapshot = Mapping[str, Any]
"""The value of each of SETTINGS by its name."""


class _Setting(NamedTuple):
    """One global setting. `shows` is True where the values fit a line; `compared` is what of a new value counts."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    shows: bool = False
    compared: Callable[[Any, Any], Any] = lambda old, new: new


def snapshot() -> Snapshot:
    """Return the state of this process and thread."""
    return {setting.name: setting.read() for setting in SETTINGS}


def restore(before: Snapshot) -> list[str]:
    """Put back what differs from a snapshot; return what did, in words: `the default dtype (float32 to float64)`."""
    changed = []
    for setting in SETTINGS:
        old = before[setting.name]
        new = setting.compared(old, setting.read())
        if old != new:
            setting.write(old)
            values = f" ({_short(old)} to {_short(new)})" if setting.shows else _names(old, new)
            changed.append(f"{setting.name}{values}")
    return changed


@contextmanager
def preserved() -> Iterator[list[str]]:
    """Put the state back after the block; the list then has what the block changed, in words."""
    before, changed = snapshot(), list[str]()
    try:
        yield changed
    finally:
        changed += restore(before)


def change_note(who: str, changed: list[str]) -> str:
    """Return the line that names who changed what. The same change gives the same line wherever it happens."""
    return (
        f"{who} changes {' and '.join(changed)} of the whole process. That is put back for the other estimators. "
        "Set dtype, device and the like on its own tensors."
    )


def in_force() -> dict[str, Any]:
    """Return what numbers depend on, as plain JSON values: the part of a run's provenance that a process sets."""
    return {
        "dtype": _short(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "deterministic": _deterministic()[0],
        "float32_matmul_precision": _float32_precision()[0],
        "cudnn_tf32": _float32_precision()[1],
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "mkldnn": _mkldnn(),
        "autocast": _autocast()[0][1],
        "denormals": "flushed to 0 in training" if torch.get_num_threads() == 1 else "kept",  # train.train_epoch
    }


def _short(value: object) -> str:
    return str(value).removeprefix("torch.")[:80]


def _names(old: Any, new: Any) -> str:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return ""
    return f" ({', '.join(sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)))[:80]})"


def _default_device() -> torch.device | None:
    """Return the device of new tensors; None where nobody has set one."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else torch.get_default_device()


def _deterministic() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


def _set_deterministic(value: tuple[bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])
    torch.utils.deterministic.fill_uninitialized_memory = value[2]  # type: ignore[attr-defined]


_ENTERED: list[torch.inference_mode] = []  # a mode ends when its object is collected


def _set_inference_mode(on: bool) -> None:
    _ENTERED.append(torch.inference_mode(on))  # whoever entered a mode has the only way out; another one goes on top
    _ENTERED[-1].__enter__()


_B = torch.backends
_OPERATIONS = ("matmul", "conv", "rnn")
_PARTS = (_B.cuda.matmul, *(getattr(part, name, None) for part in (_B.cudnn, _B.mkldnn) for name in _OPERATIONS))
_FP32: list[Any] = [owner for owner in (_B, _B.cudnn, _B.mkldnn, *_PARTS) if hasattr(owner, "fp32_precision")]
"""Where torch 2.9 and later keep the precision of float32 products; the older switches are read and set besides."""
_MIXED = "mixed"


def _float32_precision() -> tuple[str, bool | str, tuple[str, ...]]:
    newer = tuple(owner.fp32_precision for owner in _FP32)
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, newer
    except RuntimeError:  # torch reads the older switches no more once the newer ones contradict them
        return _MIXED, _MIXED, newer


def _set_float32_precision(value: tuple[str, bool | str, tuple[str, ...]]) -> None:
    matmul, cudnn, newer = value
    if matmul != _MIXED:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn  # type: ignore[assignment]
    for owner, precision in zip(_FP32, newer, strict=True):
        if owner.fp32_precision != precision:
            owner.fp32_precision = precision


def _cudnn() -> tuple[bool, bool, bool]:
    return torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic


def _set_cudnn(value: tuple[bool, bool, bool]) -> None:
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = value


_REDUCTIONS = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")


def _reductions() -> tuple[Any, ...]:
    return tuple(getattr(torch._C, f"_get_cublas_{name}")() for name in _REDUCTIONS)


def _set_reductions(value: tuple[Any, ...]) -> None:
    for name, old in zip(_REDUCTIONS, value, strict=True):
        setattr(torch.backends.cuda.matmul, name, old)


_KERNELS = tuple(
    name for name in ("flash", "mem_efficient", "math", "cudnn") if hasattr(_B.cuda, f"{name}_sdp_enabled")
)


def _attention() -> tuple[bool, ...]:
    return tuple(getattr(_B.cuda, f"{name}_sdp_enabled")() for name in _KERNELS)


def _set_attention(value: tuple[bool, ...]) -> None:
    for name, is_enabled in zip(_KERNELS, value, strict=True):
        getattr(_B.cuda, f"enable_{name}_sdp")(is_enabled)


def _mkldnn() -> bool:
    return bool(torch._C._get_mkldnn_enabled())


def _autocast() -> tuple[tuple[Any, ...], ...]:
    devices = ("cpu", "cuda")
    return tuple((name, torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in devices)


def _set_autocast(value: tuple[tuple[str, bool, torch.dtype], ...]) -> None:
    for name, is_enabled, dtype in value:
        torch.set_autocast_enabled(name, is_enabled)
        torch.set_autocast_dtype(name, dtype)


def _hooks() -> tuple[tuple[dict[Any, Any], tuple[Any, ...]], ...]:
    """Return the tables of hooks that every module and optimiser calls, each with the keys of what is in it."""
    tables = [
        table
        for owner in (modules, optimizers)
        for name, table in vars(owner).items()
        if name.startswith("_global_") and isinstance(table, dict)
    ]
    return tuple((table, tuple(table)) for table in tables)


def _hook_keys() -> tuple[tuple[Any, ...], ...]:
    return tuple(keys for _, keys in _hooks())


def _remove_hooks(before: tuple[tuple[Any, ...], ...]) -> None:
    for (table, keys), old in zip(_hooks(), before, strict=True):
        for key in set(keys) - set(old):
            del table[key]


def _raising_filters() -> tuple[Any, ...]:
    """Return the filters that make a warning an error. Others change what is printed, and libraries add them."""
    return tuple(each for each in warnings.filters if each[0] == "error")


def _drop_raising_filters(before: tuple[Any, ...]) -> None:
    warnings.filters[:] = [  # type: ignore[index]
        each for each in warnings.filters if each[0] != "error" or each in before
    ]


_MLFLOW = tuple(f"MLFLOW_{word}_" for word in ("ALLOW", "DISABLE", "ENABLE", "HTTP", "SUPPRESS"))
_SET_BY_US = ("TORCH", "_TORCH", "TRITON", "GIT_PYTHON_", *_MLFLOW)
"""How the names of variables begin that torch's compiler and `reports.contract.mlflow_environment` set themselves."""


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_SET_BY_US)}


_BY_TORCH = ("ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "GOMP_", "KMP_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "PYTORCH_")
_READ = (*_BY_TORCH, "HARNESS_", "MLFLOW_", "MPL", "OPENBLAS_", "XDG_")
"""Beginnings of the names of variables that the harness and its libraries read: also those that were added go."""


def _without_own(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return the new variables without those that foreign code added for itself."""
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
    if threading.current_thread() is threading.main_thread():  # no other thread may
        for number, handler in zip(_SIGNALS, before, strict=True):
            if handler is not None:
                signal.signal(number, handler)


def _umask() -> int | None:
    """Return which rights new files lack; None where the system does not tell it without changing it."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as lines:
        return next((int(line.split()[1], 8) for line in lines if line.startswith("Umask:")), None)
    return None


def _set_umask(value: int | None) -> None:
    if value is not None:
        os.umask(value)


def _print_options() -> dict[str, Any]:
    return dict(vars(torch._tensor_str.PRINT_OPTS))


SETTINGS: tuple[_Setting, ...] = (
    _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, shows=True),
    _Setting("the default device", _default_device, torch.set_default_device, shows=True),
    _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads, shows=True),
    _Setting("the use of deterministic algorithms", _deterministic, _set_deterministic),
    _Setting("the inference mode", torch.is_inference_mode_enabled, _set_inference_mode, shows=True),
    _Setting("the grad mode", torch.is_grad_enabled, torch._C._set_grad_enabled, shows=True),
    _Setting(
        "the anomaly mode",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
    ),
    _Setting("the precision of float32 products", _float32_precision, _set_float32_precision),
    _Setting("the switches of cudnn", _cudnn, _set_cudnn),
    _Setting("the reductions of half-precision products", _reductions, _set_reductions),
    _Setting("the kernels of attention", _attention, _set_attention),
    _Setting("the use of mkldnn", _mkldnn, torch._C._set_mkldnn_enabled, shows=True),
    _Setting("the use of nnpack", torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled, shows=True),
    _Setting(
        "the threads of the backward pass",
        torch._C._is_multithreading_enabled,
        torch._C._set_multithreading_enabled,
        shows=True,
    ),
    _Setting("numpy's treatment of errors", np.geterr, lambda value: np.seterr(**value)),
    _Setting("the flushing of denormals", flushes_denormals, torch.set_flush_denormal),
    _Setting("the state of autocast", _autocast, _set_autocast),
    _Setting("the hooks of all modules", _hook_keys, _remove_hooks),
    _Setting("the print options", _print_options, lambda value: vars(torch._tensor_str.PRINT_OPTS).update(value)),
    _Setting("which warnings are errors", _raising_filters, _drop_raising_filters),
    _Setting("the environment variables", _environment, _set_environment, compared=_without_own),
    _Setting("the current folder", _folder, _go_to, shows=True),
    _Setting("the umask", _umask, _set_umask),
    _Setting("the handlers of signals", _handlers, _set_handlers),
    _Setting("the collection of garbage", gc.isenabled, lambda on: gc.enable() if on else gc.disable(), shows=True),
    _Setting("the level up to which logging is off", lambda: logging.root.manager.disable, logging.disable, shows=True),
)
"""Inference mode comes before grad mode, which it switches off."""
