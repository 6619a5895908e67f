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
    """Return the sections of a report. One of a tuned sweep has a section more, after the numbers."""
    made = [section(context) for section in SECTIONS]
    if context.runs.tuning is not None:
        made.insert(SECTIONS.index(quality.section) + 1, tuning.section(context))
    return made
