"""The newest checkpoint of each unfinished run, as checksummed files of the sweep's folder."""

from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path
from typing import final

from harness import atomic_file
from harness.events import Checkpoint
from harness.storage import checksummed_file
from harness.storage.attempt import Attempt
from harness.training.checkpoint import label_of


def _set_aside(path: Path) -> str:
    """Rename a file that is no checkpoint; say so."""
    try:
        return f"It is kept as {checksummed_file.rename_damaged(path).name}"
    except OSError as error:
        return f"It could not be renamed ({error.strerror})"


@final
class CheckpointFiles:
    """The newest checkpoint of each unfinished run, as files of the sweep's folder, written by the driver alone."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder / "checkpoints", say
        self._is_failing = False

    def save(self, run_key: str, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint instead of the former one. A disk that refuses it is said once, and stops nothing."""
        try:
            self._folder.mkdir(exist_ok=True)
            checksummed_file.write(self._path(run_key), checkpoint.content)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._say(f"checkpoints: {self._folder} could not be written to ({error.strerror}); the sweep goes on.")
            self._is_failing = True

    def load(self, run_key: str, attempt: Attempt) -> bytes | None:
        """Return the checkpoint from which an attempt may go on: of the same code, all its epochs in the journal.

        One that is damaged or cannot be read is set aside, said, and no more taken for one: the run starts over.
        """
        path = self._path(run_key)
        try:
            content = checksummed_file.read(path)
        except FileNotFoundError:
            return None
        except checksummed_file.DamagedError as error:
            self._say(f"{error} {_set_aside(path)}; the run starts over.")
            return None
        except OSError as error:
            self._say(f"{path}: expected a checkpoint, got: {error.strerror}. {_set_aside(path)}; the run starts over.")
            return None
        label, _ = label_of(content)
        fits = label.epoch <= len(attempt.epochs) and tuple(label.made_by) == attempt.code_version
        return content if fits else None

    def discard(self, run_key: str) -> None:
        """Forget the checkpoint of a run that needs it no more."""
        with suppress(OSError):  # on a disk that was made read-only; the next sweep tries again
            self._path(run_key).unlink(missing_ok=True)

    def keep_only(self, run_keys: Container[str]) -> None:
        """Forget the checkpoints of all other runs, and what killed drivers have written half."""
        atomic_file.remove_partials(self._folder)
        for path in self._folder.glob("*.ckpt"):
            if path.stem not in run_keys:
                self.discard(path.stem)

    def _path(self, run_key: str) -> Path:
        return self._folder / f"{run_key}.ckpt"
