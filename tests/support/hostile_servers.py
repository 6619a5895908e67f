"""Tracking servers that lie, redirect, answer nonsense or do not answer, and runs as a server describes them."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace


def stored_run(artifact_uri: str, **tags: str) -> SimpleNamespace:
    """Return a run as MLflow's client gives it."""
    info = SimpleNamespace(run_id="r", run_name="my run", artifact_uri=artifact_uri)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))


def _pair(key: str, value: str) -> dict[str, str]:
    return {"key": key, "value": value}


class LyingServer(http.server.BaseHTTPRequestHandler):
    """A tracking server that says each run has its files in `place`, and lists files outside of that."""

    place = ""
    elsewhere = ""  # the address of another server, to which this one sends those who ask for a file
    how = ""  # how it sends them there: "redirect", "redirect everything" or "presigned"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.how == "redirect" and "mlflow-artifacts/artifacts/" in self.path:
            self.redirect()
        elif self.how == "presigned" and "server-info" in self.path:
            self.answer({"multipart_downloads_enabled": True, "multipart_uploads_enabled": True})
        elif self.how == "presigned" and "presigned" in self.path:
            self.answer({"url": self.elsewhere, "headers": {"Metadata-Flavor": "Google"}, "file_size": 24})
        elif "experiments/get-by-name" in self.path:
            self.answer({"experiment": {"experiment_id": "1", "name": "demo", "lifecycle_stage": "active"}})
        elif "mlflow-artifacts/artifacts?" in self.path:
            names = [] if self.how else ["../../../../escaped", "/tmp/escaped", "x/../../escaped"]  # noqa: S108
            self.answer({"files": [{"path": name, "is_dir": False, "file_size": 3} for name in names]})
        elif "mlflow-artifacts/artifacts/" in self.path:
            self.answer({"not": "a list"})
        else:
            self.answer({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.how == "redirect everything":
            self.redirect()
            return
        info = {"run_id": "../../escaped", "run_uuid": "../../escaped", "experiment_id": "1", "status": "FINISHED"}
        info |= {"artifact_uri": self.place, "start_time": 2**62, "end_time": -(2**62), "lifecycle_stage": "active"}
        tags = {"harness.kind": "run", "run_key": "k", "harness.status": "finished", "estimator": "e", "seed": "1.5"}
        sweep = {"info": info | {"run_id": "p", "run_uuid": "p"}, "data": {"tags": [_pair("harness.kind", "sweep")]}}
        run = {"info": info, "data": {"tags": [_pair(*each) for each in tags.items()]}}
        self.answer({"runs": [run, sweep]})

    def redirect(self) -> None:
        self.send_response(307)
        self.send_header("Location", self.elsewhere)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class IntranetServer(http.server.BaseHTTPRequestHandler):
    """A server that only this machine can reach."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", "24")
        self.end_headers()
        self.wfile.write(b"TOP SECRET INTRANET PAGE")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class FailingServer(http.server.BaseHTTPRequestHandler):
    """A server that answers every request for a file with `code`."""

    code = 503
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if "artifacts?" in self.path and self.code in (404, 500) else self.code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


class NonsenseServer(LyingServer):
    """A server that answers each query with `answered`, which no MLflow server would."""

    answered: object = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(self.answered)


class HealthOnlyServer(http.server.BaseHTTPRequestHandler):
    """A server that answers health checks and closes every other connection."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        self.close_connection = True

    def do_POST(self) -> None:
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yield the address of a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
