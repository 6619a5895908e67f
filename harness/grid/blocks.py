"""Blocks of a grid: estimators that have the same settings, with what each of them is combined with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config import EstimatorConfig, RunConfig
from harness.datasets.own import NO_SOURCES, Sources
from harness.grid.choices import Placed
from harness.grid.errors import ErrorList
from harness.grid.estimators import BuiltEstimators, Candidate, schedules_of
from harness.grid.sections import Factor, SectionValues, expand
from harness.grid.tasks import TaskChoice
from harness.grid.yaml_nodes import short_repr
from harness.schedules import AnySchedule, NoSchedule

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

Pair = tuple[EstimatorConfig, AnySchedule | NoSchedule]


@dataclass(frozen=True)
class Block:
    """Estimators with the same sections, the grid's or those that one entry has for itself, with their schedules."""

    members: list[tuple[Candidate, list[Pair]]]
    factors: list[Factor]

    @property
    def owner(self) -> Placed | None:
        """The entry whose own settings they are; None where they are the grid's."""
        first = self.members[0][0]
        return first if first.own.factors else None

    @property
    def candidates(self) -> list[Candidate]:
        return [candidate for candidate, _ in self.members]

    @property
    def pairs(self) -> list[Pair]:
        """Each estimator with each of its schedules."""
        return [pair for _, pairs in self.members for pair in pairs]

    def schedules(self, of_grid: list[Placed]) -> list[Placed]:
        """Return the schedules that its estimators choose from, those of the grid and their own."""
        found = [each.own.schedules or of_grid for each in self.candidates]
        return list(dict.fromkeys(schedule for schedules in found for schedule in schedules))

    def count(self, tasks: Collection[TaskChoice]) -> int:
        """Return the number of configurations without device and seed, at most."""
        return len(tasks) * len(self.pairs) * math.prod(map(len, self.factors))


@dataclass(frozen=True)
class Expanded:
    """A block with its settings."""

    block: Block
    settings: list[SectionValues]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(L, K) of the layers of its models, each once."""
        return list(dict.fromkeys(shape for setting in self.settings for shape in _shapes(setting)))

    def of_block(self, built: BuiltEstimators) -> BuiltEstimators:
        """Return those of the estimators that the block has."""
        mine = set(map(id, self.block.candidates))
        return [(candidate, estimator) for candidate, estimator in built if id(candidate) in mine]

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Yield the settings of each run but device and seed, in the order of the plan."""
        for setting in self.settings:
            for estimator, schedule in self.block.pairs:
                yield {**setting, "estimator": estimator, "schedule": schedule}


def _shapes(setting: SectionValues) -> list[tuple[int, int]]:
    """Return (L, K) of the layers of a setting."""
    if setting["task"] is not None:
        return list(setting["task"].layers.values())
    return [(setting["model"].n_latents, setting["model"].n_categories)]


def make_blocks(
    candidates: Iterable[Candidate], factors: Sequence[Factor], schedules: list[Placed], registry: Registry
) -> list[Block]:
    """Return the estimators with the sections of the grid as a block, then each entry with some of its own."""
    together: dict[int, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda each: bool(each.own.factors)):
        together.setdefault(id(candidate.own) if candidate.own.factors else 0, []).append(candidate)
    return [
        Block([(each, _pairs(each, schedules, registry)) for each in mine], mine[0].own.replace(factors))
        for mine in together.values()
    ]


def _pairs(candidate: Candidate, schedules: list[Placed], registry: Registry) -> list[Pair]:
    """Return the estimator with each of its schedules; what a schedule sets is no parameter any more."""
    mine = schedules_of(candidate, registry[candidate.value.name], schedules)
    if not mine:
        return [(candidate.value, NoSchedule())]
    rest = {key: value for key, value in candidate.value.params.items() if key not in mine[0].value.sets}
    return [(candidate.value.model_copy(update={"params": rest}), schedule.value) for schedule in mine]


def expand_blocks(
    blocks: Iterable[Block],
    tasks: Sequence[TaskChoice],
    where: Placed,
    errors: ErrorList,
    sources: Sources = NO_SOURCES,
) -> list[Expanded]:
    """Return each block with its settings. A section that blocks share is built once, and refused once."""
    cache: dict[Any, Any] = {}
    found = []
    for block in blocks:
        found.append(Expanded(block, expand(block.factors, tasks, where, errors, sources, cache, block.owner)))
        if block.owner is None:
            errors.stop_if_any()
    return found


def refuse_repeated_runs(expanded: Iterable[Expanded], varies: tuple[str, ...], errors: ErrorList) -> None:
    """Add an error for each estimator that has a run which another entry has too."""
    by_estimator: dict[str, list[tuple[Candidate, list[Pair], list[SectionValues]]]] = {}
    for each in expanded:
        for candidate, pairs in each.block.members:
            by_estimator.setdefault(candidate.value.canonical, []).append((candidate, pairs, each.settings))
    for entries in by_estimator.values():
        first: dict[Any, Candidate] = {}
        for candidate, pairs, settings in entries if len(entries) > 1 else []:
            again = [
                (before, setting, pair)
                for setting in settings
                for pair in pairs
                if (before := first.setdefault(_identity(setting, pair), candidate)) is not candidate
            ]
            if again:
                before, setting, (estimator, schedule) = again[0]
                run = RunConfig(**setting, estimator=estimator, schedule=schedule, varies=varies)
                _refuse_again(run.label, *_in_order(before, candidate), errors)


def _identity(setting: SectionValues, pair: Pair) -> tuple[str, ...]:
    """Return the text of what distinguishes runs of an estimator; a task and its sections are part of it."""
    parts = [part.canonical for part in setting.values() if part is not None]
    return (*parts, pair[1].canonical)


def _in_order(one: Candidate, other: Candidate) -> tuple[Candidate, Candidate]:
    return (one, other) if one.position <= other.position else (other, one)


def _refuse_again(label: str, first: Candidate, again: Candidate, errors: ErrorList) -> None:
    message = f"expected each run once, got {short_repr(label)} again (first: {first.line})."
    errors.add(again.position, again.path, message)
