"""Metrics of the driver's machine, under the names that MLflow's tab "System metrics" expects.

MLflow's own monitors are used, so names and units are its own; GPUs are among them if `nvidia-ml-py` is installed. They
are read often, and their means are written less and less often: a week takes 3,000 points, not 60,000.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

from mlflow.entities import Metric

from reports.contract.stored_run import SYSTEM_PREFIX

READ_EVERY_S = 5.0
WRITE_EVERY_S = 10.0
SHARE = 1 / 500
"""The longest gap between two points, as a share of the elapsed time: ten times the time takes 1,150 more points."""

logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # it warns of every GPU that does not answer


@final
class SystemMetrics:
    """Means over the time since the last point. They are not in the journal, so a replay has none."""

    def __init__(self, begun_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`begun_ms` is when the parent run began. The step of a point is the time since then, in seconds."""
        self._begun_ms, self._clock = begun_ms, clock
        self._started = self._written = clock()
        self._read = -READ_EVERY_S
        self._monitors = monitors()
        for monitor in self._monitors:  # the first reading covers the time before
            monitor.collect_metrics()
            monitor.clear_metrics()

    def due(self) -> list[Metric]:
        """Return the next point of each curve if it is due, else nothing."""
        now = self._clock()
        if now - self._read < READ_EVERY_S:
            return []
        self._read = now
        for monitor in self._monitors:
            monitor.collect_metrics()
        if now - self._written < max(WRITE_EVERY_S, SHARE * (now - self._started)):
            return []
        self._written = now
        values: dict[str, float] = {}
        for monitor in self._monitors:
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        time_ms = time.time_ns() // 1_000_000
        step = max(0, time_ms - self._begun_ms) // 1000
        return [Metric(f"{SYSTEM_PREFIX}{name}", float(value), time_ms, step) for name, value in values.items()]


def monitors() -> list[Any]:
    """Return MLflow's monitors that work on this machine."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]  # untyped
    found = [kind() for kind in kinds]
    gpu: Any = GPUMonitor
    with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
        found.append(gpu())
    return found
