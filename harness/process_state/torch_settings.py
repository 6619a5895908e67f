"""The global settings of torch."""

from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from harness.devices import flushes_denormals
from harness.process_state.setting import Setting


def current_settings() -> dict[str, Any]:
    """Return the settings that numbers depend on, as plain JSON values for the provenance of a run."""
    return {
        "dtype": short(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "deterministic": _deterministic()[0],
        "float32_matmul_precision": _float32_precision()[0],
        "cudnn_tf32": _float32_precision()[1],
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "mkldnn": _mkldnn(),
        "autocast": _autocast()[0][1],
        "denormals": "flushed to 0 in training" if torch.get_num_threads() == 1 else "kept",  # train.train_epoch
    }


def short(value: object) -> str:
    """Return a value as a note shows it."""
    return str(value).removeprefix("torch.")[:80]


def _default_device() -> torch.device | None:
    """Return the device of new tensors, or None if it was not set."""
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


_ENTERED: list[torch.inference_mode] = []  # a mode ends when its object is garbage-collected


def _set_inference_mode(on: bool) -> None:
    _ENTERED.append(torch.inference_mode(on))  # only its owner can leave a mode, so another is put on top
    _ENTERED[-1].__enter__()


_B = torch.backends
_OPERATIONS = ("matmul", "conv", "rnn")
_PARTS = (_B.cuda.matmul, *(getattr(part, name, None) for part in (_B.cudnn, _B.mkldnn) for name in _OPERATIONS))
_FP32: list[Any] = [owner for owner in (_B, _B.cudnn, _B.mkldnn, *_PARTS) if hasattr(owner, "fp32_precision")]
"""Where torch 2.9 and later keep the precision of float32 products. The older switches are read and set as well."""
_MIXED = "mixed"


def _float32_precision() -> tuple[str, bool | str, tuple[str, ...]]:
    newer = tuple(owner.fp32_precision for owner in _FP32)
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, newer
    except RuntimeError:  # torch refuses to read the older switches if the newer ones contradict them
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
    """Return the tables of global hooks of modules and optimisers, each with its keys."""
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


def _print_options() -> dict[str, Any]:
    return dict(vars(torch._tensor_str.PRINT_OPTS))


TORCH_SETTINGS: tuple[Setting, ...] = (
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, shows=True),
    Setting("the default device", _default_device, torch.set_default_device, shows=True),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads, shows=True),
    Setting("the use of deterministic algorithms", _deterministic, _set_deterministic),
    Setting("the inference mode", torch.is_inference_mode_enabled, _set_inference_mode, shows=True),
    Setting("the grad mode", torch.is_grad_enabled, torch._C._set_grad_enabled, shows=True),
    Setting(
        "the anomaly mode",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
    ),
    Setting("the precision of float32 products", _float32_precision, _set_float32_precision),
    Setting("the switches of cudnn", _cudnn, _set_cudnn),
    Setting("the reductions of half-precision products", _reductions, _set_reductions),
    Setting("the kernels of attention", _attention, _set_attention),
    Setting("the use of mkldnn", _mkldnn, torch._C._set_mkldnn_enabled, shows=True),
    Setting("the use of nnpack", torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled, shows=True),
    Setting(
        "the threads of the backward pass",
        torch._C._is_multithreading_enabled,
        torch._C._set_multithreading_enabled,
        shows=True,
    ),
    Setting("the flushing of denormals", flushes_denormals, torch.set_flush_denormal),
    Setting("the state of autocast", _autocast, _set_autocast),
    Setting("the hooks of all modules", _hook_keys, _remove_hooks),
    Setting("the print options", _print_options, lambda value: vars(torch._tensor_str.PRINT_OPTS).update(value)),
)
"""Inference mode comes before grad mode, which it switches off."""
