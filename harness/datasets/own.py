"""Images of one's own, by the `data` section of a grid: what is known of them, and reading them.

The grid is read where the command runs, the images also where the runs are. So a run carries a digest of the images,
and a process that finds others refuses to train.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from harness.datasets.descriptions import DATASETS, DataError
from harness.datasets.image_source import OWN, ImageSource
from harness.errors import did_you_mean

if TYPE_CHECKING:
    from harness.datasets.own_images import OwnImages

Sources = Mapping[str, type[ImageSource]]
"""The data sets of plug-ins by their names."""
NO_SOURCES: Sources = MappingProxyType({})


class OwnSettings(Protocol):
    """What is read of a configuration; `harness.config.DataConfig` has it."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def location(self) -> str | None: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def source(self) -> type[ImageSource] | None: ...


class Facts(NamedTuple):
    """What a run knows of its images before it reads them. Their names are those of fields of `DataConfig`.

    `location` is an absolute path, or None for a plug-in; `n_images` has the training, validation and test images.
    """

    location: str | None
    digest: str
    n_images: tuple[int, int, int]
    image_shape: tuple[int, ...]


def is_own(name: str) -> bool:
    """Return whether a name is not that of a built-in data set."""
    return name not in DATASETS


def unknown_name(name: str, sources: Sources = NO_SOURCES) -> DataError:
    """Return the error, with a suggestion, of a name that no data set has."""
    known = [*DATASETS, *OWN, *sources]
    hint = did_you_mean(name, known) or "See: harness list datasets."
    return DataError(
        f"data.name: expected one of {', '.join(known)}, got '{name}'. {hint} One of your own needs --plugin FILE."
    )


def unread(name: str) -> DataError:
    """Return the error of own images of which nothing is known yet."""
    return DataError(f"data.name: expected images that were read before, got '{name}'. Use DataConfig(…).identified().")


def facts(config: OwnSettings, sources: Sources = NO_SOURCES) -> Facts:
    """Read own images and return what is known of them then.

    Raises DataError if there are none; the message begins with `data.name` or `data.path`.
    """
    if config.name not in (*OWN, *sources):
        raise unknown_name(config.name, sources)
    try:
        return _facts_at_path(config) if config.name in OWN else _facts_of_source(sources[config.name])
    except DataError as error:
        raise DataError(f"data.{'path' if config.name in OWN else 'name'}: {error}") from error


def _facts_at_path(config: OwnSettings) -> Facts:
    if config.path is None:
        raise DataError(f"expected the path of the images of data {config.name}, got none.")
    location = Path(config.path).expanduser().absolute()
    return _facts_at(config.name, location, config.size, config.path, _state(location))


@functools.lru_cache(maxsize=64)
def _facts_of_source(source: type[ImageSource]) -> Facts:
    from harness.datasets.image_source import read_source

    return _facts(None, read_source(source))


@functools.lru_cache(maxsize=64)
def _facts_at(kind: str, location: Path, size: tuple[int, int] | None, label: str, state: tuple[object, ...]) -> Facts:
    """Return the facts of a file or folder; `state` tells whether it changed since they were read."""
    return _facts(str(location), _read_at(kind, location, size, label))


def _facts(location: str | None, images: OwnImages) -> Facts:
    return Facts(location, images.digest, images.n_images, images.image_shape)


def _state(location: Path) -> tuple[object, ...]:
    """Return what changes if files are edited: names, sizes and times."""
    try:
        files = sorted(location.rglob("*")) if location.is_dir() else [location]
        return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [os.stat(file)])
    except OSError:  # reading reports it
        return ()


def _read_at(kind: str, location: Path, size: tuple[int, int] | None, label: str) -> OwnImages:
    try:
        if kind == "folder":
            from harness.datasets.image_folder import read_folder

            return read_folder(location, size, label)
        from harness.datasets.image_file import read_file

        return read_file(location, label)
    except OSError as error:
        raise DataError(f"{label}: expected to read it, got: {error.strerror or error}.") from error


def read_own(config: OwnSettings) -> OwnImages:
    """Return the images of a run, cached. Raises DataError if they are not those that the grid was read with."""
    if config.digest is None:
        raise unread(config.path or config.name)
    return _read_again(config.name, config.location, config.size, config.source, config.digest)


@functools.lru_cache(maxsize=1)
def _read_again(
    name: str,
    location: str | None,
    size: tuple[int, int] | None,
    source: type[ImageSource] | None,
    digest: str,
) -> OwnImages:
    shown = location or name
    images = _read_source(name, source) if location is None else _read_location(name, Path(location), size)
    if images.digest != digest:
        advice = (
            "splits() must return the same images at every call: seed it."
            if location is None
            else "They changed since, or are others on this machine. The same command reads the grid again."
        )
        raise DataError(
            f"{shown}: expected the images that the grid was read with, sha256 {digest[:16]}…, got "
            f"{images.digest[:16]}…. {advice}"
        )
    return images


def _read_source(name: str, source: type[ImageSource] | None) -> OwnImages:
    from harness.datasets.image_source import read_source

    if source is None:
        raise DataError(f"{name}: expected the plug-in with this data set, got none. Give it with --plugin FILE.")
    return read_source(source)


def _read_location(name: str, location: Path, size: tuple[int, int] | None) -> OwnImages:
    if not location.exists():
        raise DataError(
            f"{location}: expected the images of this grid on {platform.node()}, found none. "
            "With --executor ray they must be at the same path on every node."
        )
    return _read_at(name, location, size, str(location))
