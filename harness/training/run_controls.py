"""Saving and stopping a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final


@final
@dataclass
class RunControls:
    """When a run saves its state, whether it should stop after an epoch, and whether its weights are kept."""

    every_s: float | None = None
    every_epochs: int | None = None
    is_stopping: Callable[[], bool] = lambda: False
    keeps_model: bool = False
    _saved: float = field(default_factory=time.monotonic)

    def is_due(self, epoch: int) -> bool:
        """Return whether to save after this epoch."""
        by_epochs = self.every_epochs is not None and epoch % self.every_epochs == 0
        by_time = self.every_s is not None and time.monotonic() - self._saved >= self.every_s
        return by_epochs or by_time

    def note_save(self) -> None:
        """Count `every_s` from now on."""
        self._saved = time.monotonic()
