"""What a device can do here: whether it exists, waiting for it, and how much memory was used."""

import ctypes
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def missing_reason(device: str) -> str | None:
    """Return why `device` cannot be used on this machine in one line, or None if it can."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        if not torch.cuda.is_available():
            return f"{device}: no CUDA device is visible to torch {torch.__version__} on this machine"
        if index and int(index) >= torch.cuda.device_count():
            return f"{device}: this machine has {torch.cuda.device_count()} CUDA device(s)"
    if kind == "mps" and not torch.backends.mps.is_available():
        return f"{device}: torch {torch.__version__} finds no MPS device on this machine"
    return None


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees for the next step, as it does by default for small blocks only.

    Otherwise blocks of more than 32 MB go back to the system and come anew, page by page: half the time of a step that
    decodes 16,384 codes at once (51 MB of pixels). Those of more than 64 MB still do, which bounds what lies idle;
    glibc before 2.35 knows no limit above 32 MB. Without effect where the library is not glibc.
    """
    if _GLIBC is not None and any(_GLIBC.mallopt(_M_MMAP_THRESHOLD, size) for size in (2**26, 2**25)):
        _GLIBC.mallopt(_M_TRIM_THRESHOLD, 2**30)  # alone, it would freeze the other at 128 KB


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for 0 inside the block, on the CPU, where they are slow.

    Within an epoch of MNIST a fifth of Adam's state is so small. The weights do not see it: eps is 1e-8. It is a state
    of one thread, so nothing changes where torch has several: the same run is to give the same bits.
    """
    if torch.get_num_threads() > 1:
        yield
        return
    before = flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushes_denormals() -> bool:
    """Return whether this thread takes numbers below 1e-38 for 0, whatever the default dtype and device are."""
    return bool(torch.full((1,), 1e-39, dtype=torch.float32, device="cpu") * 1.0 == 0)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory, where the system allows it; what is kept but not used is given back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: of the device (CUDA), else the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if _STATUS.exists():
        peak_kb = next(line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak_kb) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
