"""Calls into libraries that may hang."""

import time
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
LOOK_EVERY_S = 0.2


def call_with_deadline(call: Callable[[], Result], is_over: Callable[[], bool]) -> Result:
    """Run a call in a thread, so that Ctrl-C works and the call can time out. Return or raise what it does.

    Raises TimeoutError once `is_over` returns True; the thread is then left running.
    """
    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 it is raised again in the caller's thread
            errors.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_EVERY_S)
        if thread.is_alive() and is_over():
            raise TimeoutError("no answer in time")
    for error in errors:
        raise error
    return results[0]


def deadline(seconds: float) -> Callable[[], bool]:
    """Return a function that tells whether that many seconds have passed since now."""
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() > end_s
