"""What the driver's machine does meanwhile, under the names that MLflow's tab "System metrics" looks for.

MLflow's own monitors are asked, so names and units are its own; GPUs are among them where `nvidia-ml-py` is installed.
They are read often, and their means are written less and less often: a week takes 3,000 points, not 60,000.
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
"""At most so much of the time that has passed lies between two points: 1,150 more of them for ten times the time."""

logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # a GPU that says nothing is no news


@final
class SystemMetrics:
    """Means of what the machine did since the last point. Not in the journal: a replay has none."""

    def __init__(self, begun_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`begun_ms` is when the parent run began: the step of a point is its time since then, in seconds."""
        self._begun_ms, self._clock = begun_ms, clock
        self._started = self._written = clock()
        self._read = -READ_EVERY_S
        self._monitors = monitors()
        for monitor in self._monitors:  # what comes first tells of the time before
            monitor.collect_metrics()
            monitor.clear_metrics()

    def due(self) -> list[Metric]:
        """Return the next point of each curve if it is time for it; else nothing."""
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

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]  # they have no types
    found = [kind() for kind in kinds]
    gpu: Any = GPUMonitor
    with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
        found.append(gpu())
    return found
