"""A report about a store that somebody else filled: nothing runs, nothing lies outside its folder, nothing moves a
terminal. `tests/reports/test_in_browser.py` asks a browser the same."""

import csv
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from hostile_store import PAYLOADS, UNSEEN
from report_page import Page

from harness.cli import main
from harness.datasets import fetch
from harness.datasets.descriptions import DataError
from harness.tracking import (
    STORE_ERRORS,
    StoreUnavailableError,
    Tracker,
    TrackingError,
    errors,
    first_line,
    in_one_line,
)
from reports.contract import mlflow_environment
from reports.contract.text import visible, visible_json, visible_lines
from reports.page import export
from reports.page.latex import latex
from reports.page.table import Cell, Column, Table
from reports.report import build_report
from reports.store import artifacts
from reports.store.artifacts import Artifacts
from reports.store.load import ReportError, load

KINDS = {".html", ".csv", ".md", ".tex", ".svg", ".parquet", ".json"}


@pytest.fixture(scope="module")
def page(hostile_report) -> Page:
    return Page((hostile_report / "report.html").read_text(encoding="utf-8"))


def run(capfd, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capfd.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def test_the_report_has_no_script_but_its_own(page):
    assert page.tags.count("script") == 1
    assert not {"iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href", "action")]
    assert not [link for link in links if not link.startswith(("#", "data:image/png;base64,", "data:,"))]
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_what_the_store_says_is_there_as_text(page):
    for payload in PAYLOADS:
        shown = re.sub(r"\s+", " ", visible(payload, 100)[:100]).strip()
        assert shown in page.text, shown
    assert "{{ 7*7 }}" in page.text


def test_the_page_states_its_content_security_policy(page):
    (policy,) = (value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_no_character_is_unseen_and_no_file_elsewhere(hostile_report):
    assert {path.name for path in hostile_report.parents[1].iterdir()} == {"inner"}
    written = [path for path in hostile_report.parents[1].rglob("*") if path.is_file()]
    assert {path.suffix for path in written} == KINDS
    assert all(
        path.is_relative_to(hostile_report) and re.fullmatch(r"\.?[a-z-]+[0-9]*\.\w+", path.name) for path in written
    )
    for path in (each for each in written if each.suffix != ".parquet"):
        found = re.search(UNSEEN, path.read_text(encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8"))
        assert found is None, (path.name, found)


def test_a_spreadsheet_calculates_nothing(hostile_report):
    with (hostile_report / "tables" / "quality.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    texts = [row[name] for row in rows for name in ("setting", "device", "estimator", "estimator_label", "axes")]
    assert any(text.startswith("'=cmd") for text in texts)
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]
    assert any(row["mean"].startswith("-") or float(row["mean"] or 0) > 0 for row in rows)  # numbers stay numbers


def test_markdown_and_latex_show_labels_as_text():
    table = Table("<b> [x](y)", [Column("a", numeric=False), Column("b")], [[Cell("[1cm] | <i>"), Cell("*")]])
    assert export.markdown([table]).splitlines()[0] == "**&lt;b> [x]\\(y)**"
    assert "| [1cm] \\| &lt;i> | \\* |" in export.markdown([table])
    assert r"    {}[1cm] $|$ $<$i$>$ & * \\" in latex([table])


def test_the_name_of_an_experiment_makes_no_path(hostile_uri, tmp_path, capfd, monkeypatch):
    """Where the folder is named, the report is written there and nowhere else: see the test of its files."""
    places = []
    monkeypatch.setattr("reports.report.build_report", lambda runs, folder, *_, **__: places.append(folder) or folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    code, said = run(capfd, "report", "--tracking-uri", hostile_uri, "--from", str(tmp_path / "a" / "b"))
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("experiment: expected 1 to 64 letters")
    assert not re.search(UNSEEN, said)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b"]
    code, _ = run(capfd, "report", "--tracking-uri", hostile_uri, "--out", str(tmp_path / "a" / "b"))
    assert (code, places) == (0, [tmp_path / "a" / "b"])
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_names_in_an_error_do_not_move_the_cursor(hostile_uri, capfd):
    code, said = run(capfd, "report", "--tracking-uri", hostile_uri, "--experiment", "other")
    assert code == 2
    assert said.count("\n") == 1
    assert "<script>" in said
    assert not re.search(UNSEEN, said)


def test_what_a_plugin_raises_does_not_move_the_cursor(tmp_path, capfd):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("raise ValueError('\\x1b[2J\\x1b]0;x\\x07 \\u202e')\n")
    code, said = run(capfd, "list", "estimators", "--plugin", str(plugin))
    assert code == 2
    assert said.count("\n") == 1
    assert r"\x1b[2J" in said
    assert not re.search(UNSEEN, said)


def test_what_a_mirror_says_does_not_move_the_cursor(tmp_path, capfd, monkeypatch):
    def lying(info: object, scratch: Path) -> list[Path]:
        raise DataError("HTTPError: \x1b[2J\x1b]0;x\x07")

    monkeypatch.setattr(fetch, "_from_mirrors", lying)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    code, said = run(capfd, "data", "fetch", "fashion-mnist")
    assert code == 2
    assert said.count(r"\x1b[2J") == 2
    assert not re.search(UNSEEN, said)


@pytest.mark.parametrize("name", ["../mnist", "/etc", ".", "mnist/../../x", "\x1b[2J"])
def test_the_name_of_a_data_set_is_one_of_the_catalogue(tmp_path, capfd, monkeypatch, name):
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "data"))
    code, said = run(capfd, "data", "fetch", name)
    assert code == 2
    assert said.startswith("data.name: expected one of mnist-mini, ")
    assert not re.search(UNSEEN, said)
    assert list(tmp_path.iterdir()) == []


def test_the_interface_of_mlflow_is_on_loopback(monkeypatch, out):
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append(arguments))
    with pytest.raises(SystemExit):
        main(["ui", "--tracking-uri", f"sqlite:///{out}/mlflow.db"])
    (arguments,) = started
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"


def test_a_plugin_in_the_folder_of_a_grid_runs_only_when_it_is_named(tmp_path, capfd, monkeypatch):
    (tmp_path / "plugin.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name in ("sitecustomize.py", "conftest.py", "estimators.py", "harness_plugin.py"):
        shutil.copy(tmp_path / "plugin.py", tmp_path / name)
    (tmp_path / "grid.yaml").write_text("estimators: [plugin]\nseeds: [0]\n")
    monkeypatch.chdir(tmp_path)
    assert run(capfd, "run", "--grid", "grid.yaml", "--dry-run")[0] == 2
    assert not (tmp_path / "ran").exists()
    assert run(capfd, "run", "--grid", "grid.yaml", "--plugin", "plugin.py", "--dry-run")[0] == 2
    assert (tmp_path / "ran").exists()


def test_different_texts_stay_different():
    assert visible("a\x00") != visible("a\x01")
    assert visible("x" * 400 + "a", 300) != visible("x" * 400 + "b", 300)
    assert visible("plain · τ → λ") == "plain · τ → λ"
    assert visible_lines("a\r\nb\tc\x1b") == "a\nb\tc\\x1b"
    assert visible_json({"\x1b": ["\ud800", 1, None]}) == {"\\x1b": ["\\ud800", 1, None]}


# --- where files are read from --------------------------------------------------------------------------------------


def stored(artifact_uri: str, **tags: str) -> SimpleNamespace:
    info = SimpleNamespace(run_id="r", run_name="my run", artifact_uri=artifact_uri)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))


@pytest.fixture
def secret(tmp_path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "history.json").write_text('[{"epoch": 1}]')
    return folder


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file:{path}", "FILE://{path}", "file://host{path}"])
def test_a_server_cannot_name_a_file_of_this_machine(secret, tmp_path, form):
    read = Artifacts("http://127.0.0.1:5000", tmp_path)
    assert read.content(stored(form.format(path=secret)), "history.json") == b""
    (note,) = read.notes
    assert note.startswith(
        "my run: the stored file history.json is not used: the server says that it lies on this mach"
    )
    local = Artifacts(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert local.content(stored(str(secret)), "history.json") == b'[{"epoch": 1}]'
    assert local.notes == ()


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/x",
        "ftp://there/x",
        "mlflow-artifacts://elsewhere:80/x",
        "runs:/abc",
        "file+x:///etc",
        "x://[",
    ],
)
def test_a_server_cannot_send_the_reader_elsewhere(tmp_path, place):
    read = Artifacts("http://127.0.0.1:5000", tmp_path)
    assert read.content(stored(place), "history.json") == b""
    assert len(read.notes) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_link_does_not_lead_out_of_a_run(secret, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "history.json").symlink_to(secret / "history.json")
    (folder / "images").symlink_to(secret)
    os.mkfifo(folder / "plan.json")
    (folder / "grid.yaml").symlink_to("grid.yaml")
    read = Artifacts(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    run = stored(str(folder))
    names = ("history.json", "images/history.json", "plan.json", "grid.yaml", "absent")
    assert [read.content(run, name) for name in names] == [b""] * 5
    assert [note.partition("not used: ")[2] for note in read.notes] == ["a link leads out of the run's folder."] * 2
    assert Artifacts("sqlite:///x", tmp_path).content(stored("/\x00"), "a") == b""


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(11))
    read = Artifacts("sqlite:///x", tmp_path)
    assert [len(read.content(stored(str(tmp_path)), name)) for name in "ab"] == [10, 0]
    assert read.notes == ("my run: the stored file b is not used: it has more than 10 bytes.",)


class Liar(http.server.BaseHTTPRequestHandler):
    """A tracking server whose every run keeps its files where the server says, and whose files are a listing."""

    place = ""
    elsewhere = ""  # the address of another server, to which this one sends whoever asks for a file
    how = ""  # it does so: redirect or presigned
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


class Intranet(http.server.BaseHTTPRequestHandler):
    """A server that only this machine reaches."""

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


def _pair(key: str, value: str) -> dict[str, str]:
    return {"key": key, "value": value}


@pytest.mark.parametrize("place", ["file://{secret}", "mlflow-artifacts:/1/r/artifacts"])
def test_a_server_that_lies_writes_and_reads_nothing_elsewhere(secret, tmp_path, monkeypatch, place):
    (secret / "plan.json").write_text('[{"run_key": "private"}]')
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(Liar, "place", place.format(secret=secret))
    monkeypatch.setattr(Liar, "asked", [], raising=False)
    before = sorted(tmp_path.rglob("*"))
    with served(Liar) as uri:
        runs = load("demo", uri)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped").exists()  # noqa: S108
    assert list(runs.runs["run_key"]) == ["k"]
    assert runs.history.empty
    assert runs.runs["seed"].isna().all()
    build_report(runs, tmp_path / "report")


@pytest.mark.parametrize("how", ["redirect", "redirect everything", "presigned"])
def test_a_server_cannot_make_a_report_ask_another_one(tmp_path, monkeypatch, how):
    """Nor where the user's environment has the ways open, for another program."""
    monkeypatch.setenv("MLFLOW_ALLOW_HTTP_REDIRECTS", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", str(how == "presigned").lower())
    monkeypatch.setattr(Intranet, "asked", [], raising=False)
    monkeypatch.setattr(Liar, "asked", [], raising=False)
    monkeypatch.setattr(Liar, "place", "mlflow-artifacts:/1/r/artifacts")
    monkeypatch.setattr(Liar, "how", how)
    with served(Intranet) as elsewhere, served(Liar) as uri:
        monkeypatch.setattr(Liar, "elsewhere", f"{elsewhere}/latest/meta-data")
        if how == "redirect everything":
            with pytest.raises(ReportError, match=r"^tracking URI: expected an MLflow store[^\n]*$"):
                load("demo", uri)
        else:
            assert "SECRET" not in load("demo", uri).sweeps[0].grid
    assert Liar.asked
    assert Intranet.asked == []


def test_a_server_cannot_make_a_sweep_write_to_another_one(tmp_path, monkeypatch):
    """What is logged stays here too: the same settings hold in a process that only writes."""
    code = "import os, harness.tracking; print(*(os.environ[name] for name in os.environ if 'MULTIPART' in name or "
    code += "'REDIRECTS' in name))"
    monkeypatch.setenv("MLFLOW_ALLOW_HTTP_REDIRECTS", "true")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["false"] * 3


def test_a_percent_sign_in_the_name_of_a_folder_is_decoded_once(tmp_path):
    folder = tmp_path / "100%25 mine"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    assert Artifacts("sqlite:///x", tmp_path).content(stored(folder.as_uri()), "a") == b"x"


class Unwell(http.server.BaseHTTPRequestHandler):
    """The artifact store behind a server is away; or this file of it is."""

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


@pytest.mark.parametrize("code", [503, 404, 500])
def test_a_server_without_an_answer_is_asked_for_one_file(tmp_path, monkeypatch, code):
    """Unlike one that lacks a file."""
    mlflow_environment.prepare()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(Unwell, "code", code)
    monkeypatch.setattr(Unwell, "asked", [], raising=False)
    with served(Unwell) as uri:
        read = Artifacts(uri, tmp_path)
        run = stored("mlflow-artifacts:/1/r/artifacts", **{artifacts.TAG_CHECKSUMS: '{"a": "0", "b": "0"}'})
        begun = time.monotonic()
        assert [read.content(run, name) for name in "ab"] == [b"", b""]
        assert time.monotonic() - begun < 10
    asked_for_second = any("b" in path.rpartition("artifacts/1/r/artifacts")[2] for path in Unwell.asked)
    if code == 503:
        (note,) = read.notes
        assert note.startswith("Stored files are missing: the server did not answer when it was asked for a (API")
        assert not asked_for_second
    else:
        assert len(read.notes) == 2
        assert asked_for_second


def test_a_report_waits_no_longer_for_a_server_than_a_sweep(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with pytest.raises(ReportError):
        load("demo", "http://127.0.0.1:9")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"


def test_what_the_library_of_an_object_store_raises_is_reported_once(tmp_path, monkeypatch):
    class NoCredentialsError(Exception):
        """As boto3 raises it."""

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", Mock(side_effect=NoCredentialsError("none\x1b here")))
    read = Artifacts("http://127.0.0.1:5000", tmp_path)
    assert [read.content(stored("s3://bucket/r"), name) for name in "ab"] == [b"", b""]
    (note,) = read.notes
    assert "s3://bucket did not answer when it was asked for a (none\\x1b here)" in note


class Nonsense(Liar):
    """A server that is none of MLflow's."""

    answered: object = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(self.answered)


@pytest.mark.parametrize(
    "answered", [{"runs": "x"}, {"experiments": 3, "runs": [3]}, [], "x", {"runs": [{"info": 1}]}, {"runs": [None]}]
)
def test_a_server_that_answers_nonsense_is_one_line(tmp_path, monkeypatch, answered):
    monkeypatch.setattr(Nonsense, "asked", [], raising=False)
    monkeypatch.setattr(Nonsense, "answered", answered)
    with served(Nonsense) as uri:
        with pytest.raises(ReportError, match=r"^tracking URI: expected an MLflow store, [^\n]*$"):
            load("demo", uri)
        with pytest.raises((*STORE_ERRORS, TrackingError)) as said:
            Tracker(uri, out=tmp_path).open_sweep(name="demo", sweep_id="s", runs=[], tags={}, files={})
        assert "\n" not in in_one_line(said.value)


class Hangup(http.server.BaseHTTPRequestHandler):
    """A server that is well, says it, and answers nothing else."""

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


def test_a_password_in_an_address_is_not_repeated(tmp_path):
    """MLflow's exception has the whole address."""
    with served(Hangup) as uri:
        uri = uri.replace("//", "//me:s3%2Fcr@t@")
        with pytest.raises(ReportError, match=r"got 'http://me:\*\*\*@127") as told:
            load("demo", uri)
        with pytest.raises(StoreUnavailableError, match=r"at http://me:\*\*\*@127") as said:
            Tracker(uri, out=tmp_path)
    for error in (told.value, said.value):
        assert "cr@t" not in str(error)
        assert "s3" not in str(error)


@pytest.mark.parametrize(
    "uri", ["http://h:port", "http://127.0.0.1:99999", "http://me:s3/cr@t@h", "http://[", "postgresql://h:port/d"]
)
def test_an_address_that_is_none_is_one_line(tmp_path, uri):
    with pytest.raises(TrackingError, match=r"^tracking: expected scheme://host:port, [^\n]*$") as said:
        Tracker(uri, out=tmp_path)
    if uri.startswith("http"):
        with pytest.raises(ReportError, match=r"^tracking URI: expected scheme://host:port, [^\n]*$") as told:
            load("demo", uri)
        assert "s3" not in str(told.value)
    assert "s3" not in str(said.value)


def test_a_slash_in_the_password_of_a_database_is_taken():
    assert errors.scheme_of("postgresql+psycopg2://me:pa/ss@h:1/d") == "postgresql"


def test_what_a_server_says_of_an_outage_does_not_move_the_cursor():
    assert first_line(OSError("\x1b[2J\nmore")) == "\\x1b[2J"
