"""EMNIST and Omniglot, whose files are made from the archives that torchvision downloads."""

import gzip
import hashlib
import io
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from small_datasets import N_TEST, N_TRAIN, Settings, get, install_catalogue, put, small

from harness.datasets import files as stored_files
from harness.datasets.descriptions import DATASETS, Archive, DataError
from harness.datasets.idx import format_idx, sha256
from harness.datasets.load import load


def archive_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def emnist(tmp_path, monkeypatch, torchvision) -> np.ndarray:
    """EMNIST's archive behind a torchvision that downloads it; gives the upright training images."""
    info, plain = small("emnist-letters", "nothing")
    upright_NHW = np.zeros((N_TRAIN, 28, 28), np.uint8)
    upright_NHW[:, 4, 2:20] = 255  # a stroke along a row near the top: lying in memory along a column
    plain["emnist-letters-train-images-idx3-ubyte"] = format_idx(upright_NHW.transpose(0, 2, 1).copy())
    members = {f"gzip/{name}.gz": gzip.compress(content, mtime=0) for name, content in plain.items()}
    content = archive_of(members | {"gzip/emnist-digits-train-images-idx3-ubyte.gz": b"of no interest"})
    info = replace(info, archives=(Archive("gzip.zip", len(content), sha256(content)),))
    install_catalogue(monkeypatch, info)

    def EMNIST(root: str, *, split: str, download: bool) -> None:
        assert (split, download) == ("letters", True)
        put(Path(root) / "EMNIST" / "raw", {"gzip.zip": content})

    torchvision.EMNIST = EMNIST
    return upright_NHW


def test_emnist_letters_are_upright_and_labelled_from_zero(tmp_path, emnist):
    get("emnist-letters", tmp_path)
    data = load(Settings("emnist-letters", validation_fraction=0.0), data_dir=tmp_path / "data")
    assert np.array_equal(data.train_ND.view(-1, 28, 28).numpy() * 255, emnist)
    assert data.train_N.min() >= 0
    assert data.train_N.max() <= 25
    assert torch.equal(data.to("cpu").test_ND, data.test_ND)


def test_checksums_of_unpacked_files_are_recorded_and_compared(tmp_path, emnist):
    """Files made on this machine have no published checksum: the one recorded guards them."""
    folder, _ = get("emnist-letters", tmp_path)
    sums = stored_files.recorded_checksums(folder)
    assert len(sums) == 4
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == found for name, found in sums.items())
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", stored_files.CHECKSUMS], cwd=folder, check=True)
    assert get("emnist-letters", tmp_path)[1] == [f"emnist-letters: complete in {folder}, nothing to do."]
    path = folder / "emnist-letters-test-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(format_idx(np.ones(N_TEST, np.uint8))))
    with pytest.raises(
        DataError, match=r"test-labels-idx1-ubyte.gz: expected sha256 .* Get it again with: harness data"
    ):
        load(Settings("emnist-letters"), data_dir=tmp_path / "data")


def test_files_without_their_record_are_not_used(tmp_path, emnist):
    """The record is written last: a fetch killed before it is not complete."""
    folder, _ = get("emnist-letters", tmp_path)
    (folder / stored_files.CHECKSUMS).unlink()
    with pytest.raises(DataError, match=r"with a known checksum, got one without"):
        load(Settings("emnist-letters"), data_dir=tmp_path / "data")
    assert get("emnist-letters", tmp_path)[1][-1] == f"emnist-letters: 4 verified files stored in {folder}."


def test_a_damaged_archive_is_refused(tmp_path, emnist, torchvision):
    torchvision.EMNIST = mock.Mock(side_effect=RuntimeError("File not found or corrupted."))
    source = put(tmp_path / "mine", {"gzip.zip": b"PK not the published one"})
    with pytest.raises(DataError, match=r"mine/gzip.zip: expected sha256 \w{64}, got \w{64} \(24 bytes\)"):
        get("emnist-letters", tmp_path, source)


def png(array_HW: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array_HW).convert("1").save(stream, "png")
    return stream.getvalue()


def test_omniglot_is_inverted_and_resized_smoothly(tmp_path, monkeypatch, torchvision):
    """Background trains, evaluation tests; a bar of ink keeps its place and its mass, with gray at its edges."""
    info = DATASETS["omniglot"]
    bar_HW = np.full((105, 105), 255, np.uint8)
    bar_HW[:, 47:58] = 0
    drawing, blank = png(bar_HW), png(np.full((105, 105), 255, np.uint8))
    train = {f"images_background/Greek/character0{c}/0{c}_0{i}.png": drawing for c in (1, 2) for i in range(3)}
    test = {f"images_evaluation/{a}/character01/01_01.png": blank for a in ("Kannada", "Manipuri")}
    archives = {"images_background.zip": archive_of(train), "images_evaluation.zip": archive_of(test)}
    shapes = [(6, 28, 28), (6,), (2, 28, 28), (2,)]
    info = replace(
        info,
        n_train=6,
        n_test=2,
        files=tuple(replace(file, shape=shape) for file, shape in zip(info.files, shapes, strict=True)),
        archives=tuple(Archive(name, len(content), sha256(content)) for name, content in archives.items()),
    )
    install_catalogue(monkeypatch, info)

    def Omniglot(root: str, *, background: bool, download: bool) -> None:
        name = f"images_{'background' if background else 'evaluation'}.zip"
        put(Path(root) / "omniglot-py", {name: archives[name]})

    torchvision.Omniglot = Omniglot
    get("omniglot", tmp_path)
    data = load(Settings("omniglot", validation_fraction=0.0), data_dir=tmp_path / "data")
    image_HW = data.train_ND[0].view(28, 28)
    assert image_HW[:, 13:15].min() == 1
    assert image_HW[:, :11].max() == 0
    assert image_HW[:, 17:].max() == 0
    assert ((image_HW > 0) & (image_HW < 1)).any()
    assert image_HW.mean().item() == pytest.approx(11 / 105, abs=0.005)
    assert data.test_ND.abs().max() == 0
    assert sorted(data.train_N.tolist()) == [0, 0, 0, 1, 1, 1]
    assert data.test_N.tolist() == [2, 3]
