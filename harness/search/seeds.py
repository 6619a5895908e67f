"""The seeds of the final runs: a fixed list, or one after the other until the answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.config import RunConfig
from harness.search.blocks import Block, Results, Rule

if TYPE_CHECKING:
    from reports.statistics.racing import Dropped, Race

FinalRuns = Callable[[Sequence[RunConfig], tuple[str, ...]], Rule]
"""Settings, as runs with any seed, and lines for the user -> the rule of their runs."""


@dataclass(frozen=True)
class Until:
    """The section `seeds` of a grid that stops when the answer is known.

    `band` is the smallest difference that matters, in the unit of the first measure; None: what the task declares.
    `within` says whether all settings that are left must be within the band of the best, or any.
    """

    first: int = 0
    at_least: int = 3
    at_most: int = 30
    band: float | None = None
    within: Literal["all", "any"] = "all"

    @property
    def seeds(self) -> range:
        """All seeds that there may be."""
        return range(self.first, self.first + self.at_most)

    def stated(self) -> dict[str, Any]:
        """Return the section as JSON data."""
        return {"at_least": self.at_least, "at_most": self.at_most, "band": self.band, "within": self.within}


def each_seed(seeds: Sequence[int]) -> FinalRuns:
    """Return the rule that runs every setting with every seed."""

    def final(settings: Sequence[RunConfig], lines: tuple[str, ...]) -> Rule:
        def blocks(_: Results) -> Iterator[Block]:
            yield Block(tuple(with_seed(run, seed) for seed in seeds for run in settings), lines)

        return blocks

    return final


def until_decided(until: Until) -> FinalRuns:
    """Return the rule that runs settings seed by seed, without those that are certainly not the best of their task."""

    def final(settings: Sequence[RunConfig], lines: tuple[str, ...]) -> Rule:
        def blocks(results: Results) -> Iterator[Block]:
            by_task: dict[str, list[RunConfig]] = {}
            for run in settings:
                by_task.setdefault(run.task_label, []).append(run)
            races = [_TaskRace(runs, until) for runs in by_task.values() if len(runs) > 1]
            first = tuple(with_seed(run, seed) for seed in until.seeds[: until.at_least] for run in settings)
            yield Block(first, lines)
            for n in range(until.at_least, until.at_most + 1):
                said = tuple(line for one in races if one.racing for line in one.look(n, results))
                alive = [run for one in races for run in one.racing]
                yield Block(tuple(with_seed(run, until.seeds[n]) for run in alive), said)
                if not alive:
                    return

        return blocks

    return final


def with_seed(run: RunConfig, seed: int) -> RunConfig:
    """Return a run with another seed."""
    return run.model_copy(update={"seed": seed})


class _TaskRace:
    """The race of the settings of one task."""

    def __init__(self, settings: Sequence[RunConfig], until: Until) -> None:
        self._settings, self._until = settings, until
        self._measure = settings[0].measures[0]
        self._values: list[list[float]] = [[] for _ in settings]  # of each setting, by seed, until it was dropped
        self._racing = list(range(len(settings)))
        self._n_dropped = 0

    @property
    def racing(self) -> list[RunConfig]:
        """The settings that go on; none when the race has ended."""
        return [self._settings[i] for i in self._racing]

    def look(self, n_seeds: int, results: Results) -> Iterator[str]:
        """Look at the results of so many seeds, and yield what they decide as lines."""
        for i in self._racing:
            new = self._until.seeds[len(self._values[i]) : n_seeds]
            self._values[i] += [_value(results(with_seed(self._settings[i], seed))) for seed in new]
        found = self._race(n_seeds)
        yield from map(self._dropped_line, found.dropped[self._n_dropped :])
        self._n_dropped = len(found.dropped)
        self._racing = [] if found.ended else list(found.alive)
        if found.ended:
            yield self._end_line(found)

    def _race(self, n_seeds: int) -> Race:
        import numpy as np

        from reports.statistics.racing import race

        until = self._until
        values = np.full((len(self._settings), n_seeds), np.nan)
        for row, mine in zip(values, self._values, strict=True):
            row[: len(mine)] = mine
        band = self._measure.band or 0.0 if until.band is None else until.band
        return race(values, band=band, at_least=until.at_least, at_most=until.at_most, within=until.within)

    def _dropped_line(self, dropped: Dropped) -> str:
        name, other = (self._settings[i].label for i in (dropped.setting, dropped.against))
        if dropped.failed:
            return f"after {dropped.n_seeds} seeds: {name} is dropped, a run of it failed"
        interval = dropped.interval if self._measure.better == "lower" else dropped.interval.mirrored
        shown = f"[{interval.low:+.3g}, {interval.high:+.3g}]"
        return f"after {dropped.n_seeds} seeds: {name} is dropped, {shown} to {other}"

    def _end_line(self, found: Race) -> str:
        left = ", ".join(self._settings[i].label for i in found.alive)
        states = {
            "best": f"decided after {found.n_seeds} seeds: {left} is best",
            "equivalent": f"decided after {found.n_seeds} seeds: within the band of the best are {left}",
            "within band": f"decided after {found.n_seeds} seeds: within the band of the best is"
            f" {', '.join(self._settings[i].label for i in found.near)}",
            "undecided": f"not decided after {found.n_seeds} seeds: the best is among {left}",
        }
        return states[found.state]


def _value(result: float | None) -> float:
    """Return a result for the race, in which a failed run is infinitely bad."""
    return math.inf if result is None else result
