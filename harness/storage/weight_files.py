"""The weights of finished runs, as files in the sweep's folder (`harness run --save-models`)."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import final

from harness import atomic_file
from harness.events import Weights


@final
class WeightFiles:
    """The folder of weights. Only the driver writes to it."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._folder, self._say = folder / "models", say
        self._is_failing = False

    def save(self, run_key: str, weights: Weights) -> bool:
        """Write a file and return whether that worked. Repeated failures are reported once; the sweep goes on."""
        try:
            self._folder.mkdir(exist_ok=True)
            atomic_file.write(self._path(run_key), weights.content)
        except OSError as error:
            if not self._is_failing:
                self._say(f"models: {self._folder} could not be written to ({error.strerror}); the sweep goes on.")
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def read(self, run_key: str, sha256: str) -> bytes | None:
        """Return the weights with that checksum, or None if they are missing or damaged."""
        try:
            content = self._path(run_key).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == sha256 else None

    def discard(self, run_key: str) -> None:
        """Remove the weights of a previous attempt."""
        with suppress(OSError):
            self._path(run_key).unlink(missing_ok=True)

    def _path(self, run_key: str) -> Path:
        return self._folder / f"{Path(run_key).name}.pt"
