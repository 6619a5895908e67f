"""The effect of Ctrl-C, SIGTERM and SIGHUP on a sweep."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self, final


@final
class Signals:
    """A context in which the first signal calls `first`. Further ones, except SIGHUP, raise KeyboardInterrupt.

    `first` interrupts the main thread at any point, so it should only set a flag.
    """

    def __init__(self, first: Callable[[], None]) -> None:
        self._first = first
        self._n = 0
        self._is_held = self._is_due = False

    def __enter__(self) -> Self:
        handled = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
            handled.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._is_due = False  # it was raised

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay a KeyboardInterrupt until the block has ended, and raise it then."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_due:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _discard_output()
            if self._n:  # kernel and shell may both send it, so it is not a second request
                return
        self._n += 1
        if self._n == 1:
            self._first()
        elif self._is_held:
            self._is_due = True
        else:
            raise KeyboardInterrupt


def _discard_output() -> None:
    """Redirect output to a terminal, which is gone now, to nowhere. Writing to it would fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            os.dup2(null, descriptor)
    os.close(null)
