"""A tracking server is looked for the way that MLflow's client goes: through the proxies of the environment."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.tracking.errors import StoreUnavailableError, check_server
from reports.contract.errors import ReportError
from reports.contract.web_server import ask_server
from reports.store.tracking_uri import checked_uri

FAR = "http://mlflow.example.test:5077"
"""A host that no name server knows."""


class Proxy(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(503 if "busy" in self.path else 200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A forward proxy; what it was asked for."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Proxy.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
        yield Proxy.asked
        server.shutdown()


@pytest.mark.parametrize("path", ["", "/busy"])
def test_a_server_behind_a_proxy_is_there_whatever_it_answers(proxy: list[str], path: str) -> None:
    ask_server(FAR + path)
    check_server(FAR + path)
    assert checked_uri(FAR + path) == FAR + path
    assert proxy == [f"{FAR}{path}/health"] * 3


def test_without_the_proxy_it_cannot_be_reached(proxy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "mlflow.example.test")
    with pytest.raises(
        StoreUnavailableError, match=rf"^tracking: expected an MLflow server at {FAR}, got: [^\n]*not known"
    ):
        check_server(FAR)
    with pytest.raises(ReportError, match=rf"expected a tracking server that answers, got '{FAR}' \([^\n]*\)\. Start"):
        checked_uri(FAR)
    assert proxy == []


def test_a_proxy_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"^\[Errno \d+\] Connection refused \(of the proxy\)$"):
        ask_server(FAR)


def test_a_server_that_hangs_up_or_stays_silent_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.contract.web_server.ANSWER_S", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"^no answer within 0 s$"):
            ask_server(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert time.monotonic() - begun < 5


def test_a_database_server_is_left_to_its_driver() -> None:
    """libpq knows sockets, several hosts and service files, of which a check of our own would know nothing."""
    check_server("postgresql://no.such.host.test:1/db")
    check_server("mssql+pyodbc://no.such.host.test/db")
