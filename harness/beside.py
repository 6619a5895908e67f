"""A call into a library that may hang, beside the main thread: that hears Ctrl-C, and its patience has an end."""

import time
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
LOOK_EVERY_S = 0.2


def beside(call: Callable[[], Result], patience_s: float) -> Result:
    """Return what the call returns, or raise what it raises; TimeoutError after so many seconds, while it goes on."""
    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 it is raised again, where the caller is
            errors.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    until = time.monotonic() + patience_s
    while thread.is_alive():
        thread.join(LOOK_EVERY_S)
        if thread.is_alive() and time.monotonic() > until:
            raise TimeoutError(f"no answer within {patience_s:g} s")
    for error in errors:
        raise error
    return results[0]
