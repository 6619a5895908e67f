"""Times, sizes and intervals on the command line: 90s, 4GB, 5epochs."""

import re
from typing import final

import click

from harness.options import NEVER, SavingEvery

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


@final
class _Quantity(click.ParamType):  # type: ignore[type-arg] # generic in new versions only
    """A positive number with a unit."""

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name, self._units, self._example = name, units, example

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]+)", str(value))
        if found is None or found[2] not in self._units:
            return self.fail(f"expected a number and one of {', '.join(self._units)} ({self._example}), got {value!r}.")
        if not float(found[1]) > 0:
            return self.fail(f"expected more than 0, got {value!r}.")
        return float(found[1]) * self._units[found[2]]


@final
class _SavingInterval(click.ParamType):  # type: ignore[type-arg] # generic in new versions only
    name = "interval"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> SavingEvery:
        if isinstance(value, SavingEvery):
            return value
        if value == "never":
            return NEVER
        found = re.fullmatch(r"([1-9]\d{0,8}) ?epochs?", str(value))
        return SavingEvery(epochs=int(found[1])) if found else SavingEvery(DURATION.convert(value, param, ctx))


DURATION = _Quantity("time", SECONDS, "90s, 30m, 2h")
SIZE = _Quantity("size", BYTES, "800MB, 4GB")
SAVING = _SavingInterval()


def counted(number: int, what: str) -> str:
    """Return a number with its noun: `1 run`, `2,000 runs`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return seconds as `3.2 s`, `45 s`, `12 min` or `3.4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
