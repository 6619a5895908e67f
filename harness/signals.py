"""What Ctrl-C and SIGTERM do to a sweep."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self, final


@final
class Signals:
    """While entered: the first signal calls `first`, any more raise KeyboardInterrupt in the main thread.

    `first` runs in the middle of whatever the main thread is doing, so it may set a flag and no more.
    """

    def __init__(self, first: Callable[[], None]) -> None:
        self._first = first
        self._n = 0
        self._is_held = self._is_due = False

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
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
        self._n += 1
        if self._n == 1:
            self._first()
        elif self._is_held:
            self._is_due = True
        else:
            raise KeyboardInterrupt
