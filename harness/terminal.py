"""Standard output and error whose failures never stop a sweep, and the properties of the terminal.

The terminal may know only ASCII, the reader of a pipe may be gone, the disk with a log file may be full, or there may
be no standard output at all. A sweep continues in each case.
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
· *  – -  — -  − -  → ->  ← <-  ↑ ^  ↓ v  ↔ <->  ⇌ <->  … ...  × x  ÷ /  ± +-  ≤ <=  ≥ >=  ≈ ~  ∼ ~  ≠ !=  ≡ =  ∞ inf
∈ in  ‖ |  √ sqrt  ∘ o  ∖ \\  ∂ d  ∫ int  ∇ grad  ⌊ [  ⌋ ]  “ "  ” "  „ "  ‘ '  ’ '  • *  ● *  ✓ ok  ✗ x  ° deg
§ section  τ tau  σ sigma  μ mu  λ lambda  α alpha  β beta  δ delta  ε eps  η eta  θ theta  π pi  ϖ pi  φ phi  χ chi
Σ sum  Π prod  Δ Delta  Φ Phi
"""
ASCII_SIGNS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True)) | {
    "\xa0": " ",
    "\N{FRACTION SLASH}": "/",
    **dict.fromkeys("─━╌╍┄┅┈┉╸╺═╴╶", "-"),
    **dict.fromkeys("│┃║┆┇┊┋", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋╭╮╯╰╔╗╚╝╠╣╦╩╬╇╈╉╊┡┩┢┪", "+"),
    **dict.fromkeys("█▓▒░▏▎▍▌▋▊▉", "#"),
}
"""The signs that this project and its libraries print, and their ASCII replacements."""
_DECOMPOSITIONS = {"<super>": "^", "<sub>": "_", "<fraction>": ""}

NARROWEST, WIDEST = 20, 500
"""The limits of the number of columns or lines, whatever COLUMNS and LINES say."""
_READER_IS_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ENOTCONN})
"""The errors of a pipe, terminal or descriptor that has no reader any more."""


def to_encoding(text: str, encoding: str) -> str:
    """Return the text with letters that the encoding lacks replaced by ASCII: known signs by words, others escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        if _letter("·", encoding) != "·":
            text = text.replace(" · ", " - ")  # it separates the parts of a label; in a formula it is a product
        return "".join(_letter(letter, encoding) for letter in text)
    except LookupError:
        return to_encoding(text, "ascii")
    return text


def _letter(letter: str, encoding: str) -> str:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        kind, *codes = unicodedata.decomposition(letter).split() or [""]
        if kind in _DECOMPOSITIONS:  # such as ᵀ, ₁ and ½
            parts = (chr(int(code, 16)) for code in codes)
            return _DECOMPOSITIONS[kind] + "".join(ASCII_SIGNS.get(part, part) for part in parts)
        return ASCII_SIGNS.get(letter) or letter.encode("ascii", "backslashreplace").decode("ascii")
    return letter


@final
class Output(io.TextIOBase):
    """A text stream around standard output or error that never raises. What cannot be written is dropped.

    `problem` says why something was dropped. It is None if nothing was, or if the reader is gone (as in
    `harness run | head`). Bytes that are written to `buffer` pass through it, too.
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
        """Do nothing: every encoding works already."""

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
        """Note that output was lost. If the reader is gone, discard all output from now on, in child processes too."""
        number = error.errno if isinstance(error, OSError) else errno.EBADF
        if number not in _READER_IS_GONE:
            self.problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return
        stream, self._stream = self._stream, None
        if stream is not None:
            _redirect_to_null(stream)


@final
class _Bytes(io.RawIOBase):
    """The binary layer of an `Output`, which decodes bytes and passes them on as text."""

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
    """Replace standard output and error by an `Output` each. Yield that of standard output."""
    _fill_standard_descriptors()
    before = sys.stdout, sys.stderr
    outputs = Output(before[0]), Output(before[1])
    sys.stdout, sys.stderr = outputs
    try:
        yield outputs[0]
    finally:
        sys.stdout, sys.stderr = before
        for output, stream in zip(outputs, before, strict=True):
            output.flush()
            if output.problem is not None and stream is not None:
                _redirect_to_null(stream)  # the interpreter would fail when it flushes it at exit


def _redirect_to_null(stream: TextIO) -> None:
    """Redirect the descriptor of a stream to the null device, and flush its buffers there."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def _fill_standard_descriptors() -> None:
    """Open the null device for closed standard streams (`>&-`), before one of our files gets their number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(opened, True)


def can_move_cursor(stream: TextIO) -> bool:
    """Return whether the cursor can be moved: only on a terminal, and not in the log of a CI.

    FORCE_COLOR does not change this. TERM=dumb, TTY_COMPATIBLE=0 and TTY_INTERACTIVE=0 ask for plain lines.
    """
    environment = os.environ
    plain_asked = "0" in (environment.get("TTY_COMPATIBLE"), environment.get("TTY_INTERACTIVE"))
    dumb = environment.get("TERM", "").lower() in ("dumb", "unknown")
    in_ci = environment.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not (plain_asked or dumb or in_ci)


def wants_colours(stream: TextIO) -> bool:
    """Return whether to colour text for a file or a pipe: FORCE_COLOR asks for it, NO_COLOR forbids it."""
    environment = os.environ
    return not stream.isatty() and bool(environment.get("FORCE_COLOR")) and not environment.get("NO_COLOR")


def size_from_environment(name: str, usual: int) -> int | None:
    """Return the size in COLUMNS or LINES, within limits. None if it is not set, `usual` if it is not a number."""
    given = os.environ.get(name, "")
    if not given:
        return None
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 20 else 0
    return min(max(number, NARROWEST), WIDEST) if number else usual
