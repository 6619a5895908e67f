"""The files of a run in MLflow: its artifacts, and its pictures once more for the charts of the interface."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

from mlflow.tracking import MlflowClient
from mlflow.tracking.multimedia import compress_image_size

from harness.events import Picture
from harness.tracking.errors import STORE_ERRORS, StoreUnavailableError, TrackingError
from reports.contract.stored_run import CHARTS_FOLDER, TAG_CHARTS
from reports.contract.text import first_line


@final
class Files:
    """A writer of files. MLflow puts them into a folder, through its server, or into S3 and the like."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def log(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Log files by their names. Raises what is in STORE_ERRORS, and TrackingError for a path out of the run."""
        if not files:
            return
        with TemporaryDirectory(prefix="harness-") as folder:
            for name, content in files.items():
                path = Path(folder, name)
                if not path.resolve().is_relative_to(Path(folder).resolve()):  # the name may come from a journal
                    raise TrackingError(f"tracking: expected the name of a file below its run, got {name!r}.")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            with failures_as_outages():
                self._client.log_artifacts(run_id, folder)

    def log_for_charts(self, run_id: str, picture: Picture, time_ms: int, *, again: bool) -> None:
        """Log a picture with its step.

        With `again`, a picture that the charts have from before an outage is overwritten.
        """
        from PIL import Image

        image = Image.open(io.BytesIO(picture.png))
        found = self._find_in_charts(run_id, picture, time_ms) if again else None
        if found is None:
            with failures_as_outages():
                self._client.log_image(
                    run_id, image, key=picture.name, step=picture.step, timestamp=time_ms, synchronous=True
                )
            return
        small = io.BytesIO()
        compress_image_size(image).save(small, "webp")
        name, separator = found
        self.log(run_id, {f"{name}.png": picture.png, f"{name}{separator}compressed.webp": small.getvalue()})
        self._client.set_tag(run_id, TAG_CHARTS, True, synchronous=True)

    def _find_in_charts(self, run_id: str, picture: Picture, time_ms: int) -> tuple[str, str] | None:
        """Return the stem of a picture's name in the charts and the separator in it, or None."""
        parts = (re.escape(picture.name), "step", str(picture.step), "timestamp", str(time_ms), "[^+%.]+")
        with failures_as_outages():
            files = self._client.list_artifacts(run_id, CHARTS_FOLDER)
        for separator in "+%":  # older versions of MLflow use the second
            pattern = re.compile(f"({CHARTS_FOLDER}/" + re.escape(separator).join(parts) + ").*")
            for file in files:
                if match := pattern.fullmatch(file.path):
                    return match[1], separator
        return None


@contextmanager
def failures_as_outages() -> Iterator[None]:
    """Raise StoreUnavailableError for what the library of an artifact store raises.

    boto3, google-cloud and azure have exceptions of their own.
    """
    try:
        yield
    except STORE_ERRORS:
        raise
    except Exception as error:
        raise StoreUnavailableError(f"tracking: {type(error).__name__}: {first_line(error)}") from error
