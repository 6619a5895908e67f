"""The seeds of the final runs: a fixed list, or block by block until the answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness.config import RunConfig
from harness.search.blocks import Block, Results, Rule

FinalRuns = Callable[[Sequence[RunConfig], tuple[str, ...]], Rule]
"""Settings, as runs with any seed, and lines for the user -> the rule of their runs."""


def each_seed(seeds: Sequence[int]) -> FinalRuns:
    """Return the rule that runs every setting with every seed."""

    def final(settings: Sequence[RunConfig], lines: tuple[str, ...]) -> Rule:
        def blocks(_: Results) -> Iterator[Block]:
            yield Block(tuple(with_seed(run, seed) for seed in seeds for run in settings), lines)

        return blocks

    return final


def with_seed(run: RunConfig, seed: int) -> RunConfig:
    """Return a run with another seed."""
    return run.model_copy(update={"seed": seed})
