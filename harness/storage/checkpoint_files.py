"""The newest checkpoint of each unfinished run, as files in the sweep's folder."""

from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path
from typing import final

from harness import atomic_file
from harness.errors import first_line
from harness.events import Checkpoint
from harness.storage import checksummed_file
from harness.storage.attempt import Attempt
from harness.training.checkpoint import split_label


@final
class CheckpointFiles:
    """The folder of checkpoints. Only the driver writes to it."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder / "checkpoints", say
        self._is_failing = False

    def save(self, run_key: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint of a run. Repeated failures are reported once; the sweep goes on."""
        try:
            self._folder.mkdir(exist_ok=True)
            checksummed_file.write(self._path(run_key), checkpoint.content)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._say(f"checkpoints: {self._folder} could not be written to ({error.strerror}); the sweep goes on.")
            self._is_failing = True

    def load(self, run_key: str, attempt: Attempt) -> bytes | None:
        """Return the checkpoint from which an attempt can continue: made by the same code, no newer than the journal.

        A checkpoint that cannot be read is renamed and reported, and the run starts over.
        """
        path = self._path(run_key)
        try:
            content = checksummed_file.read(path)
            label, _ = split_label(content)
        except FileNotFoundError:
            return None
        except checksummed_file.DamagedError as error:
            why = str(error)
        except (ValueError, TypeError) as error:
            why = f"{path}: expected a checkpoint, got: {first_line(error)}."
        except OSError as error:
            why = f"{path}: the checkpoint cannot be read ({error.strerror})."
        else:
            fits = label.epoch <= len(attempt.epochs) and tuple(label.made_by) == attempt.code_version
            return content if fits else None
        self._say(f"{why} {_rename(path)}; the run starts over.")
        return None

    def discard(self, run_key: str) -> None:
        """Remove the checkpoint of a run that no longer needs it."""
        with suppress(OSError):  # the disk became read-only; the next sweep tries again
            self._path(run_key).unlink(missing_ok=True)

    def keep_only(self, run_keys: Container[str]) -> None:
        """Remove the checkpoints of all other runs, and the incomplete files of killed drivers."""
        atomic_file.remove_partials(self._folder)
        for path in self._folder.glob("*.ckpt"):
            if path.stem not in run_keys:
                self.discard(path.stem)

    def _path(self, run_key: str) -> Path:
        return self._folder / f"{run_key}.ckpt"


def _rename(path: Path) -> str:
    """Rename a file that is not a checkpoint. Return what became of it."""
    try:
        return f"It is kept as {checksummed_file.rename_damaged(path).name}"
    except OSError as error:
        return f"It could not be renamed ({error.strerror})"
