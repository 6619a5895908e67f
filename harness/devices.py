"""The devices of this machine: whether they exist, how to wait for them, and the memory that was used."""

import ctypes
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def missing_reason(device: str) -> str | None:
    """Return why `device` cannot be used on this machine, in one line, or None if it can."""
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
    """Wait until the device has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that this process frees, as it does by default for small blocks only.

    Otherwise blocks of more than 32 MB are returned to the system and mapped again page by page, which takes half the
    time of a step that decodes 16,384 codes at once (51 MB of pixels). Blocks of more than 64 MB are still returned, to
    bound the idle memory; before glibc 2.35 the limit is 32 MB. This has no effect with other C libraries.
    """
    if _GLIBC is not None and any(_GLIBC.mallopt(_M_MMAP_THRESHOLD, size) for size in (2**26, 2**25)):
        _GLIBC.mallopt(_M_TRIM_THRESHOLD, 2**30)  # set alone, it would fix the other threshold at 128 KB


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers (below 1e-38) to 0 inside the block. They are slow on the CPU.

    After an epoch of MNIST, a fifth of Adam's state is denormal. The weights are not affected, since eps is 1e-8. The
    setting belongs to one thread. So with several threads it stays off, to give the same bits in every run.
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
    """Return whether this thread flushes denormals to 0, whatever the default dtype and device are."""
    return bool(torch.full((1,), 1e-39, dtype=torch.float32, device="cpu") * 1.0 == 0)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory if the system allows it. Unused memory is returned first."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: that of the device for CUDA, else the resident memory of this process."""
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
