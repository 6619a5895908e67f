"""Calls into libraries that may hang."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
LOOK_EVERY_S = 0.2


def call_with_deadline(call: Callable[[], Result], is_over: Callable[[], bool]) -> Result:
    """Run a call in a thread, so that Ctrl-C works and the call can time out. Return or raise what it does.

    Raises TimeoutError once `is_over` returns True; the thread is then left running.
    """
    future = Future[Result]()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 it is raised again in the caller's thread
            future.set_exception(error)

    Thread(target=work, daemon=True).start()  # a ThreadPoolExecutor would wait for it when the process ends
    while not wait([future], LOOK_EVERY_S).done:
        if is_over():
            raise TimeoutError("no answer in time")
    return future.result()


def deadline(seconds: float) -> Callable[[], bool]:
    """Return a function that tells whether that many seconds have passed since now."""
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() > end_s
