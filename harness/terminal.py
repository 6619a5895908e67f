"""Standard output and error that never end the work, and what kind of terminal they are.

Whoever prints here may have a terminal that knows ASCII alone, a pipe that nobody reads any more, a full disk behind a
log file, or no standard output at all. A sweep goes on in each case.
"""

import errno
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, final

_PAIRS = """
· *  – -  — -  − -  → ->  ← <-  ↔ <->  ⇌ <->  … ...  × x  ÷ /  ± +-  ≤ <=  ≥ >=  ≈ ~  ∼ ~  ≠ !=  ≡ =  ∞ inf  ∈ in
‖ |  √ sqrt  ∘ o  ∖ \\  ∂ d  ∫ int  ∇ grad  ⌊ [  ⌋ ]  “ "  ” "  „ "  ‘ '  ’ '  • *  ● *  ✓ ok  ✗ x  ° deg  § section
τ tau  σ sigma  μ mu  λ lambda  α alpha  β beta  δ delta  ε eps  η eta  θ theta  π pi  ϖ pi  φ phi  χ chi
Σ sum  Π prod  Δ Delta  Φ Phi
"""
SIGNS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True)) | {
    "\xa0": " ",
    "\N{FRACTION SLASH}": "/",
    **dict.fromkeys("─━╌╍┄┅┈┉╸╺═╴╶", "-"),
    **dict.fromkeys("│┃║┆┇┊┋", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋╭╮╯╰╔╗╚╝╠╣╦╩╬╇╈╉╊┡┩┢┪", "+"),
    **dict.fromkeys("█▓▒░▏▎▍▌▋▊▉", "#"),
}
"""Signs that this project and its libraries print, in ASCII."""
_KINDS = {"<super>": "^", "<sub>": "_", "<fraction>": ""}

NARROWEST, WIDEST = 20, 500
"""No terminal is taken to have fewer or more columns, whatever COLUMNS says."""
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ENOTCONN})
"""How a pipe, a terminal or a descriptor says that nobody will ever read what is written."""


def to_encoding(text: str, encoding: str) -> str:
    """Return the text with every letter that the encoding lacks in ASCII: a sign in words, any other as its escape."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        if _letter("·", encoding) != "·":
            text = text.replace(" · ", " - ")  # between the parts of a label; in a formula it is a product
        return "".join(_letter(letter, encoding) for letter in text)
    except LookupError:
        return to_encoding(text, "ascii")
    return text


def _letter(letter: str, encoding: str) -> str:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        kind, *codes = unicodedata.decomposition(letter).split() or [""]
        if kind in _KINDS:  # such as ᵀ, ₁ and ½
            return _KINDS[kind] + "".join(SIGNS.get(part, part) for part in (chr(int(code, 16)) for code in codes))
        return SIGNS.get(letter) or letter.encode("ascii", "backslashreplace").decode("ascii")
    return letter


@final
class Output(io.TextIOBase):
    """A text stream around standard output or error. It raises nothing: what cannot be written is dropped.

    `problem` says why something was dropped; it is None as long as nothing was, and where the reader has gone away
    (`harness run | head`). What is written to its `buffer` comes through it too.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.problem: str | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(to_encoding(text, self.encoding))
            except (OSError, ValueError) as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._drop(error)

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: object) -> None:
        """Change nothing: every encoding works already."""

    @property
    def buffer(self) -> "_Bytes":
        return _Bytes(self)

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # it is closed
            return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def _drop(self, error: OSError | ValueError) -> None:
        """Note what was lost. Where nobody reads any more, write nowhere from now on, in child processes too."""
        number = error.errno if isinstance(error, OSError) else errno.EBADF
        if number not in _GONE:
            self.problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return
        stream, self._stream = self._stream, None
        if stream is not None:
            _write_nowhere(stream)


@final
class _Bytes(io.RawIOBase):
    """The bytes that a program writes past the text layer, as text."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        data = bytes(content)
        self._output.write(data.decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        self._output.flush()


@contextmanager
def resilient_output() -> Iterator[Output]:
    """Put an `Output` in the place of standard output, which is yielded, and of standard error."""
    _fill_standard_descriptors()
    before = sys.stdout, sys.stderr
    mine = Output(before[0]), Output(before[1])
    sys.stdout, sys.stderr = mine
    try:
        yield mine[0]
    finally:
        sys.stdout, sys.stderr = before
        for output, stream in zip(mine, before, strict=True):
            output.flush()
            if output.problem is not None and stream is not None:
                _write_nowhere(stream)  # the interpreter flushes it once more when it ends, and would fail


def _write_nowhere(stream: TextIO) -> None:
    """Let the descriptor of a stream lead to the null device: what is left in its buffers goes there."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def _fill_standard_descriptors() -> None:
    """Open the null device where a standard stream was closed (`>&-`), before a file of ours gets its number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)


def can_move_cursor(stream: TextIO) -> bool:
    """Return whether a cursor can be moved: on a terminal only, whatever FORCE_COLOR says, and not in the log of a CI.

    TERM=dumb, TTY_COMPATIBLE=0 and TTY_INTERACTIVE=0 ask for plain lines.
    """
    environment = os.environ
    asked_not = "0" in (environment.get("TTY_COMPATIBLE"), environment.get("TTY_INTERACTIVE"))
    dumb = environment.get("TERM", "").lower() in ("dumb", "unknown")
    in_ci = environment.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not (asked_not or dumb or in_ci)


def wants_colours(stream: TextIO) -> bool:
    """Return whether to colour text that goes nowhere but into a file: NO_COLOR forbids it, FORCE_COLOR asks for it."""
    environment = os.environ
    return not stream.isatty() and bool(environment.get("FORCE_COLOR")) and not environment.get("NO_COLOR")


def size_from_environment(name: str, usual: int) -> int | None:
    """Return what COLUMNS or LINES asks for, within reason; None where it is not set, `usual` where it is no number."""
    given = os.environ.get(name, "")
    if not given:
        return None
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 20 else 0
    return min(max(number, NARROWEST), WIDEST) if number else usual
