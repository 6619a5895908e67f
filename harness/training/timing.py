"""Times of training steps, measured without synchronising inside an epoch."""

import time
from itertools import pairwise

import torch

from harness.devices import synchronize


class StepTimer:
    """A record of when each step ends: call `lap()` after each one, and `seconds()` at the end of the epoch.

    On CUDA it records events, so that the host never waits for the device. On MPS, where the host runs ahead and torch
    has no timed events, every step gets the mean of the epoch.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps: list[float] = []
        self._events: list[torch.cuda.Event] = []
        synchronize(device)
        self._started = time.perf_counter()
        self.lap()

    def lap(self) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
        else:
            self._laps.append(time.perf_counter())

    def seconds(self) -> tuple[list[float], float]:
        """Return (seconds per step, seconds in all), after waiting for the device."""
        synchronize(self._device)
        total = time.perf_counter() - self._started
        if self._device.type == "cuda":
            return [first.elapsed_time(second) / 1e3 for first, second in pairwise(self._events)], total
        if self._device.type == "cpu":
            return [after - before for before, after in pairwise(self._laps)], total
        n_steps = len(self._laps) - 1
        return [total / n_steps] * n_steps, total


WARM_UP_STEPS = 10


def summary(step_s: list[float], batch_size: int) -> dict[str, float]:
    """Return median and 90th percentile of the step time and the images per second at the median, warm-up excluded.

    The first 10 steps are warm-up (half of them in a run of fewer than 20).
    """
    timed = torch.tensor(step_s[min(WARM_UP_STEPS, len(step_s) // 2) :], dtype=torch.float64)
    median = timed.quantile(0.5).item()
    return {
        "time/step_s_median": median,
        "time/step_s_p90": timed.quantile(0.9).item(),
        "time/images_per_s": batch_size / median,
    }
