"""The live table on a real terminal of 80 columns: what is left on the screen after Ctrl-C."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WIDTH = 80
GRID = """
name: live
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
training: {epochs: 4000, batch_size: 50}
evaluation: {bound_samples: 2, n_images: 0}
estimators: [straight_through]
seeds: [0, 1]
"""
TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b.|[\r\n]|[^\x1b\r\n]", re.DOTALL)


class Screen:
    """As much of a terminal as rich uses: text, line ends, erasing a line, moving up; it wraps where a line is full."""

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text: str) -> None:
        for token in TOKEN.finditer(text):
            self._take(token[0], token[1], token[2])

    def _take(self, text: str, numbers: str | None, command: str | None) -> None:
        if text == "\r":
            self.column = 0
        elif text == "\n":
            self._go_down()
        elif command == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif command == "K":
            self.lines[self.row] = "" if numbers == "2" else self.lines[self.row][: self.column]
        elif command is None and not text.startswith("\x1b"):
            self._write(text)

    def _go_down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _write(self, character: str) -> None:
        if self.column == WIDTH:
            self.column = 0
            self._go_down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1


def test_the_screen_wraps_as_a_terminal_does() -> None:
    screen = Screen()
    screen.feed("head\r\n" + "b" * WIDTH + "^C\r\x1b[2K\x1b[1A\x1b[2Kdone")
    assert screen.lines == ["head", "done", ""]


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own_terminal,
            env=environment | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        self.shown = b""

    def read_until(self, done: Callable[[], bool], timeout_s: float = 60) -> None:
        until = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < until, self.shown.decode()
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._ours, 1 << 16)
                except OSError:  # the other end is closed
                    return

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)


def own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.slow
def test_nothing_of_the_live_table_is_left_after_ctrl_c(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text(GRID)
    terminal = Terminal(
        sys.executable, "-m", "harness.cli", "run", "--grid", str(path), "--out", str(out), "--workers", "2"
    )
    terminal.read_until(lambda: terminal.shown.count(b"/4000") > 4)
    terminal.type(b"\x03")
    terminal.read_until(lambda: terminal.process.poll() is not None and b"next: " in terminal.shown)
    assert terminal.process.wait(10) == 130
    text = terminal.shown.decode()
    assert "^C" in text
    screen = Screen()
    screen.feed(text)
    left = "\n".join(screen.lines)
    assert "stopping: the current epochs are finished" in left
    assert "2 interrupted." in left
    assert not re.search(r"running +epoch|^runs |━|/4000", left, re.MULTILINE), left
