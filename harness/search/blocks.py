"""A plan that grows with its results: blocks of runs, each decided by the results of all earlier ones.

A rule is a generator of blocks. It is resumed when every run of its last block has ended, and it looks at nothing but
the results of its own runs. So the same results give the same blocks, in whatever order the runs end, however many
workers compute them, and however often the sweep is killed: a new driver replays the rule on the results of the
journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.config import RunConfig

Results = Callable[[RunConfig], float | None]
"""A run that has ended -> its result, lower is better; None if it failed, diverged or was skipped."""


@dataclass(frozen=True)
class Block:
    """Runs that are known at the same time, and lines for the user about what earlier results have decided."""

    runs: tuple[RunConfig, ...] = field(repr=False)
    lines: tuple[str, ...] = ()


Rule = Callable[[Results], Iterator[Block]]


@dataclass(frozen=True)
class Growth:
    """A rule, the range of the number of runs that it can come to, and what the store is told of it, as JSON data."""

    rule: Rule
    at_least: int
    at_most: int
    stated: Mapping[str, Any] = field(default_factory=dict)
