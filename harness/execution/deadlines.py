"""A call into a library that may hang, beside the main thread: that hears Ctrl-C, and its patience has an end."""

import time
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
LOOK_EVERY_S = 0.2


def beside(call: Callable[[], Result], is_over: Callable[[], bool]) -> Result:
    """Return what the call returns, or raise what it raises; TimeoutError once `is_over`, while the call goes on."""
    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 it is raised again, where the caller is
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


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that says whether so many seconds have passed since now."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until
