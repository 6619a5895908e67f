"""Processes that are spawned without the program that spawns them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_main_module() -> Iterator[None]:
    """Let a process that is spawned meanwhile not import the program of this one: workers need nothing of it.

    A script that calls `main()` without `if __name__ == "__main__"` would start a sweep in each worker, and one that
    was read from standard input cannot be imported.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
