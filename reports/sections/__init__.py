"""The report, a section a file, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Callable

from reports.page.blocks import Section
from reports.page.context import Context
from reports.sections import (
    completeness,
    cost,
    failures,
    gradients,
    intervals,
    latents,
    learning,
    methods,
    pictures,
    published,
    quality,
    race,
    targets,
    temperature,
    tuning,
    verdict,
    win_matrix,
)

SECTIONS: tuple[Callable[[Context], Section], ...] = (
    verdict.section,
    completeness.section,
    quality.section,
    learning.section,
    intervals.section,
    win_matrix.section,
    targets.section,
    cost.section,
    temperature.section,
    gradients.section,
    latents.section,
    pictures.section,
    published.section,
    failures.section,
    methods.section,
)


def sections_of(context: Context) -> list[Section]:
    """Return the sections of a report, with one more of a tuned sweep, and of one that stopped when it was decided."""
    made = [section(context) for section in SECTIONS]
    more = [tuning.section(context)] if context.runs.tuning is not None else []
    more += [race.section(context)] if race.until_of(context) is not None else []
    place = SECTIONS.index(quality.section) + 1
    return [*made[:place], *more, *made[place:]]
