"""The files of a stored run: where they are read from, and when one is trusted. SECURITY.md says why.

A run itself says where its files lie, so a server that others write to could name any path. A path on this machine is
read only if the store is a file on this machine too. A server's files come from that server or from an object store. A
file must lie within its run's folder, be a regular file of at most MAX_BYTES, and have the checksum that the run's tag
`harness.sha256` states, unless the run is older than that tag.

A refused file counts as absent and is named in `notes`. A server that does not answer for one file is not asked for
another; `notes` says so once.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reports.contract.artifact_paths import ARTIFACTS_FOLDER, current_path, local_path
from reports.contract.sqlite_uri import DATABASE
from reports.contract.stored_run import CHARTS_FOLDER, PICTURES, PICTURES_FOLDER, TAG_CHECKSUMS
from reports.contract.text import NAME_LENGTH, visible, visible_json, without_passwords

_FOLDERS = (PICTURES_FOLDER, CHARTS_FOLDER)
"""The folders of a run's pictures; older runs have the second."""
MAX_BYTES = 64_000_000
MAX_NOTES = 20
_SERVERS = ("http", "https")
_OBJECT_STORES = ("s3", "gs", "wasbs", "abfss")  # they check the reader's own credentials
_NO_ANSWER = re.compile(r"too many (429|502|503|504) error|Caused by (?!ResponseError)|Connection broken|timed out")
"""What MLflow's exceptions say if a server does not answer. An absent file is a 404, or a 500 of MLflow's server."""
_PICTURE = re.compile(f"{PICTURES_FOLDER}/([A-Za-z0-9_-]{{1,64}})[.]png")
MAX_PICTURES = 20
"""How many pictures of a run are shown besides those of the VAE."""
_PNG = b"\x89PNG\r\n\x1a\n"


class _RefusedError(Exception):
    """Why an existing file is not used."""


class _SilentError(Exception):
    """The server of a file does not answer, or the folder of its run is missing, and a note says so."""


class Artifacts:
    """A reader of the files of runs, which verifies each; `folder` takes what has to be downloaded.

    `results` are folders in which the files of runs may lie now, wherever the store says they were.
    """

    def __init__(self, tracking_uri: str, folder: Path, results: Sequence[Path] = ()) -> None:
        self._uri, self._folder, self._results = tracking_uri, folder, tuple(results)
        self._refused: list[str] = []
        self._absent: dict[str, str] = {}  # run id -> the missing folder of its files
        self._silent: dict[str, str] = {}  # server -> the note that it does not answer

    @property
    def notes(self) -> tuple[str, ...]:
        """Return a line for each silent server and each refused file; after MAX_NOTES, how many more there are."""
        more = len(self._refused) - MAX_NOTES
        last = (f"{more} more stored files are not used for reasons like these.",) if more > 0 else ()
        return (*self._silent.values(), *self._absent_note(), *self._refused[:MAX_NOTES], *last)

    def _absent_note(self) -> tuple[str, ...]:
        if not self._absent:
            return ()
        n, path = len(self._absent), visible(next(iter(self._absent.values())), NAME_LENGTH)
        return (
            f"The files of {n} stored {'run' if n == 1 else 'runs'} are not there: expected for example the folder "
            f"{path}. Curves, pictures and plans are missing. If the results folder was moved or copied, the folder "
            f"{ARTIFACTS_FOLDER} belongs beside its {DATABASE}.",
        )

    def content(self, run: Any, name: str) -> bytes:
        """Return the file's bytes; empty if it is absent or refused."""
        try:
            content = self._read(run, name)
            _verify(name, content, run.data.tags)
        except _RefusedError as reason:
            who = visible(run.info.run_name or run.info.run_id, NAME_LENGTH)
            self._refused.append(f"{who}: the stored file {name} is not used: {reason}.")
            return b""
        except _SilentError:
            return b""
        return content or b""

    def text(self, run: Any, name: str) -> str:
        """Return the file as text."""
        return self.content(run, name).decode("utf-8", errors="replace")

    def json(self, run: Any, name: str, kind: type) -> Any:
        """Return the parsed file, or an empty ``kind`` if it is absent, damaged or something else."""
        try:
            value = visible_json(json.loads(self.content(run, name)))
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            return kind()
        if kind is list and isinstance(value, list):
            return [entry for entry in value if isinstance(entry, dict)]
        return value if isinstance(value, kind) else kind()

    def records(self, run: Any, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON list as they are, for numbers, whose names the caller makes visible."""
        try:
            value = json.loads(self.content(run, name))
        except (ValueError, RecursionError):
            return []
        return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []

    def images(self, run: Any) -> dict[str, bytes]:
        """Return the final pictures of a run by their names."""
        found = {kind: self._image(run, kind) for kind in (*PICTURES, *_other_pictures(run.data.tags))}
        return {kind: png for kind, png in found.items() if png.startswith(_PNG)}

    def _image(self, run: Any, kind: str) -> bytes:
        return next(filter(None, (self.content(run, f"{folder}/{kind}.png") for folder in _FOLDERS)), b"")

    def _read(self, run: Any, name: str) -> bytes | None:
        """Return the bytes of a file, or None if there is none."""
        root = run.info.artifact_uri
        try:
            parts = urlsplit(root)
            host = parts.netloc
        except ValueError:
            raise _RefusedError(f"its location is no address: {visible(root, NAME_LENGTH)}") from None
        if len(parts.scheme) > 1 and parts.scheme != "file":
            return _within(*self._downloaded(root, parts.scheme, host, name))
        if urlsplit(self._uri).scheme in _SERVERS:
            raise _RefusedError(
                f"the server says that it lies on this machine, at {visible(root, NAME_LENGTH)}; where it does, give "
                "the store itself as --tracking-uri"
            )
        stored = local_path(root)
        assert stored is not None  # noqa: S101 other locations were downloaded above
        path = current_path(stored, self._results)
        if not path.is_dir() and TAG_CHECKSUMS in run.data.tags:
            self._absent[run.info.run_id] = str(path)
            raise _SilentError
        return _within(path, path / name)

    def _downloaded(self, root: str, scheme: str, host: str, name: str) -> tuple[Path, Path]:
        """Download a file. Return its folder and its path, at which nothing lies if there is no such file."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        own = scheme == "mlflow-artifacts" and host in ("", urlsplit(self._uri).netloc.rpartition("@")[2])
        if not own and scheme not in _OBJECT_STORES:
            known = f"this server or one of {', '.join(_OBJECT_STORES)}"
            raise _RefusedError(f"its location is not {known}: {visible(root, NAME_LENGTH)}")
        server = f"{scheme}://{host}"
        if server in self._silent:
            raise _SilentError
        target = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            got = download_artifacts(artifact_uri=f"{root}/{name}", dst_path=str(target), tracking_uri=self._uri)
        except (MlflowException, RequestException, OSError, ImportError) as error:
            if _NO_ANSWER.search(str(error)):
                raise self._silenced(server, name, error) from error
            return target, target / "absent"
        except Exception as error:  # boto3, google-cloud and azure have their own exceptions
            raise self._silenced(server, name, error) from error
        return target, Path(got)

    def _silenced(self, server: str, name: str, error: Exception) -> _SilentError:
        reason = visible(without_passwords(" ".join(str(error).split()) or type(error).__name__), NAME_LENGTH)
        where = visible(without_passwords(server), NAME_LENGTH) if server != "mlflow-artifacts://" else "the server"
        self._silent[server] = (
            f"Stored files are missing: {where} did not answer when it was asked for {name} ({reason}), and is not "
            "asked again."
        )
        return _SilentError()


def _other_pictures(tags: Mapping[str, str]) -> list[str]:
    """Return the names of the pictures of another task than the VAE: those that the run states a checksum of."""
    try:
        stated = json.loads(tags.get(TAG_CHECKSUMS, ""))
    except (ValueError, RecursionError):
        return []
    names = [_PICTURE.fullmatch(name) for name in stated] if isinstance(stated, dict) else []
    return sorted({found[1] for found in names if found} - set(PICTURES))[:MAX_PICTURES]


def _within(root: Path, path: Path) -> bytes | None:
    """Return the bytes of a regular file below `root`, or None if there is no such file."""
    try:
        found = path.resolve()
        if not found.is_file():
            return None
        if not found.is_relative_to(root.resolve()):
            raise _RefusedError("a link leads out of the run's folder")
        with found.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError):  # an impossible path, or a loop of links
        return None
    if len(content) > MAX_BYTES:
        raise _RefusedError(f"it has more than {MAX_BYTES:,} bytes")
    return content


def _verify(name: str, content: bytes | None, tags: Mapping[str, str]) -> None:
    """Raise _RefusedError unless the file has the checksum that its run states; older runs state none."""
    if TAG_CHECKSUMS not in tags:
        return
    try:
        stated = json.loads(tags[TAG_CHECKSUMS])
    except (ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict):
        raise _RefusedError(f"the tag {TAG_CHECKSUMS} of its run cannot be read")
    if content is None and name in stated:
        raise _RefusedError("it is missing, although its checksum is there")
    if content is not None and name not in stated:
        raise _RefusedError("its run states no checksum of it")
    if content is not None and hashlib.sha256(content).hexdigest() != stated[name]:
        raise _RefusedError("its content does not have the checksum that its run states")
