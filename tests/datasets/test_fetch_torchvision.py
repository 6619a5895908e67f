"""Data sets from torchvision's mirrors."""

import gzip
import hashlib
import http.server
import socket
import socketserver
import threading
import time
from pathlib import Path

import pytest
from small_datasets import FROM_MIRRORS, assert_loads, get, install_catalogue, put, small

from harness.datasets import fetch as fetch_module
from harness.datasets.descriptions import DATASETS, DataError
from harness.datasets.fetch import fetch


def test_the_expected_names_are_those_of_torchvision():
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
