"""What Ctrl-C, SIGTERM and the end of its terminal do to a sweep."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self, final


@final
class Signals:
    """While entered: the first signal calls `first`, any more but SIGHUP raise KeyboardInterrupt in the main thread.

    `first` runs in the middle of whatever the main thread is doing, so it may set a flag and no more.
    """

    def __init__(self, first: Callable[[], None]) -> None:
        self._first = first
        self._n = 0
        self._is_held = self._is_due = False

    def __enter__(self) -> Self:
        handled = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asks for
            handled.append(signal.SIGHUP)
        self._former = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._is_due = False  # it has been raised

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a KeyboardInterrupt back until the block has ended: it is done as a whole, or not begun."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_due:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _print_nowhere()
            if self._n:  # it comes from the kernel and from the shell: nobody has asked twice
                return
        self._n += 1
        if self._n == 1:
            self._first()
        elif self._is_held:
            self._is_due = True
        else:
            raise KeyboardInterrupt


def _print_nowhere() -> None:
    """The terminal is gone, and what writes to it would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
