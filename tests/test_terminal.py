"""Output that is not UTF-8, is closed, broken or full, or only pretends to be a terminal: no command ends by it."""

import errno
import io
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

from harness.cli import main
from harness.commands.run import make_progress
from harness.commands.shared import make_console
from harness.status.progress import LiveProgress, PlainProgress
from harness.terminal import Output, can_move_cursor, resilient_output, size_from_environment, to_encoding

GRID = """
name: dim
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
training: {epochs: 1, batch_size: 50}
evaluation: {bound_samples: 1, n_images: 0}
estimators: [talkative]
seeds: [0, 1]
"""
TALKATIVE = """
import sys
from estimators import Pathwise

class Talkative(Pathwise):
    name, relaxes = "talkative", True
    def sample(self, logits_BLK):
        print("τ", flush=True)
        print("τ", file=sys.stderr, flush=True)
        return logits_BLK.softmax(-1).unsqueeze(0)
"""
MOVES = re.compile(rb"\x1b\[[0-9;?]*[A-Zhl]")


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("rloo · seed 0: test −ELBO", "ascii", "rloo - seed 0: test -ELBO"),
        ("rloo · seed 0: test −ELBO", "latin-1", "rloo · seed 0: test -ELBO"),
        ("1 → 2 – 3…", "cp1252", "1 -> 2 – 3…"),
        ("½·∇f(τ) × 10⁻⁸, pᵀ", "ascii", "1/2*gradf(tau) x 10^-^8, p^T"),
        ("━━╸│┏", "ascii", "---|+"),
        ("résultats/基準", "ascii", r"r\xe9sultats/\u57fa\u6e96"),
        ("a\udcff", "utf-8", r"a\udcff"),
        ("τ", "no-such-encoding", "tau"),
        ("基準 · τ", "utf-8", "基準 · τ"),
    ],
)
def test_signs_that_cannot_be_encoded_are_replaced(text: str, encoding: str, shown: str) -> None:
    assert to_encoding(text, encoding) == shown


def test_every_sign_that_the_sources_print_is_legible_in_ascii() -> None:
    files = [path for name in ("harness", "estimators", "reports") for path in (ROOT / name).rglob("*.py")]
    letters = {letter for path in files for letter in path.read_text(encoding="utf-8") if letter > "\x7f"}
    words = {letter for letter in letters if unicodedata.category(letter)[0] in "SP" or "GREEK" in name_of(letter)}
    assert len(words) > 40
    assert sorted(letter for letter in words if "\\" in to_encoding(letter, "ascii") and letter != "∖") == []


def name_of(letter: str) -> str:
    return unicodedata.name(letter, "")


class Failing(io.StringIO):
    """A stream that fails with an error while there is one."""

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number, self.n_tries = number, 0

    def write(self, text: str) -> int:
        self.n_tries += 1
        if self.number is not None:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.EBADF])
def test_nothing_is_written_or_said_after_the_reader_is_gone(number: int) -> None:
    stream = Failing(number)
    output = Output(stream)
    print("one", file=output)
    print("two", file=output, flush=True)
    assert (stream.n_tries, output.problem) == (1, None)


def test_a_full_disk_is_remembered_and_written_to_again() -> None:
    stream = Failing(errno.ENOSPC)
    output = Output(stream)
    output.write("lost")
    stream.number = None
    output.write("kept")
    assert (stream.getvalue(), output.problem) == ("kept", "No space left on device")


def test_a_closed_stream_and_none_at_all_take_everything() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        output = Output(stream)
        assert output.write("text") == 4
        assert not output.isatty()


def test_standard_output_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    with resilient_output():
        print("τ")
        assert sys.stdout is not mine
    assert sys.stdout is mine
    assert mine.getvalue() == "τ\n"


@pytest.mark.parametrize("command", [["list", "schedules"], ["list", "estimators", "reinmax"], ["run", "--help"]])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_commands_end_well_whatever_the_encoding(
    monkeypatch: pytest.MonkeyPatch, command: list[str], encoding: str
) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    with pytest.raises(SystemExit) as end:
        main(command)
    assert not end.value.code
    text = content.getvalue().decode(encoding)
    assert len(text) > 200
    assert {"list": "tau", "run": "Run a grid: estimators"}[command[0]] in text


def test_a_refusal_is_said_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(content, encoding="ascii"))
    with pytest.raises(SystemExit) as end:
        main(["status", "--grid", str(tmp_path / "größe.yaml")])
    assert end.value.code == 2
    assert b"gr\\xf6\\xdfe.yaml:1:1: file: expected a readable grid file" in content.getvalue()


def test_lost_output_of_a_command_that_makes_nothing_else_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    with pytest.raises(SystemExit) as end:
        main(["list", "schedules"])
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "standard output: some of it was lost because writing failed: No space left on device.\n"
    )


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "moving"),
    [
        (Tty, {}, True),
        (Tty, {"NO_COLOR": "1", "COLUMNS": "0"}, True),
        (Tty, {"CI": "false", "FORCE_COLOR": ""}, True),
        (Tty, {"TERM": "dumb"}, False),
        (Tty, {"TTY_COMPATIBLE": "0"}, False),
        (Tty, {"TTY_INTERACTIVE": "0"}, False),
        (Tty, {"CI": "true"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, False),
        (io.StringIO, {"TTY_COMPATIBLE": "1", "CLICOLOR_FORCE": "1", "TTY_INTERACTIVE": "1"}, False),
    ],
)
def test_the_cursor_moves_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.StringIO], environment: dict[str, str], moving: bool
) -> None:
    for name in ("CI", "TERM", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream())
    assert can_move_cursor(sys.stdout) is moving
    console = make_console()
    assert isinstance(make_progress(console), LiveProgress if moving else PlainProgress)
    with console.status("working"):
        console.print("[bold]done")
    shown = sys.stdout.getvalue().encode()  # type: ignore[attr-defined]
    assert b"done" in shown
    assert bool(MOVES.search(shown)) is moving


@pytest.mark.parametrize(
    ("given", "size"),
    [("", None), ("100", 100), ("0", 80), ("-3", 80), ("7", 20), ("9" * 9, 500), ("9" * 99, 80)],
)
def test_columns_within_reason(monkeypatch: pytest.MonkeyPatch, given: str, size: int | None) -> None:
    monkeypatch.setenv("COLUMNS", given)
    assert size_from_environment("COLUMNS", 80) == size
    assert 20 <= make_console().width <= 500


def sweep(folder: Path, command: str, **environment: str) -> tuple[int, bytes]:
    """Run the grid in a shell, whose line says where the output goes; return exit code and what came to stderr."""
    (folder / "dim.yaml").write_text(GRID)
    (folder / "talkative.py").write_text(TALKATIVE)
    run = f"{sys.executable} -m harness.cli run --grid dim.yaml --plugin talkative.py --out results --workers 1"
    done = subprocess.run(
        ["bash", "-c", command.format(run=run)], cwd=folder, capture_output=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_sweep_into_a_log_file_in_ascii(tmp_path: Path, out: Path) -> None:
    assert sweep(tmp_path, "{run} >log", PYTHONIOENCODING="ascii", FORCE_COLOR="1")[0] == 0
    log = (tmp_path / "log").read_bytes()
    assert log.isascii()
    assert log.count(b"finished: talkative - seed") == 2
    assert b"tau\n" in log  # the plug-in's own
    assert not MOVES.search(log)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("set -o pipefail; {run} | true", b""),
        (
            "{run} >/dev/full",
            b"standard output: some of it was lost because writing failed: No space left on device.\n",
        ),
        ("{run} >/dev/full 2>&1", b""),
        ("{run} >&-", b""),
        ("{run} <&- >&- 2>&-", b""),
        ("{run} 2>&1 | true; exit ${{PIPESTATUS[0]}}", b""),
    ],
)
def test_a_sweep_goes_on_whatever_happens_to_its_output(tmp_path: Path, out: Path, command: str, said: bytes) -> None:
    code, stderr = sweep(tmp_path, command)
    assert code == 0
    assert stderr.replace("τ\n".encode(), b"") == said
    journal = (tmp_path / "results" / "dim" / "journal.jsonl").read_bytes()
    assert journal.count(b'"kind": "finished"') == 2
    assert re.match(rb"[0-9a-f]{8} \{", journal)  # nothing was printed into it


def test_a_program_may_reconfigure_it_or_write_bytes() -> None:
    """Scripts and plug-ins do both with the standard output of Python."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    output = Output(stream)
    output.reconfigure(encoding="utf-8", errors="strict")
    assert output.buffer.write("τ and \xff".encode() + b"\xff") == 10
    output.buffer.flush()
    assert stream.buffer.getvalue() == b"tau and \\xff\\xff"  # type: ignore[attr-defined]
