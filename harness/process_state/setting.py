"""One global setting of a process."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A global setting. `shows`: its values fit on a line. `compared` returns the part of a new value to compare."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    shows: bool = False
    compared: Callable[[Any, Any], Any] = lambda old, new: new
