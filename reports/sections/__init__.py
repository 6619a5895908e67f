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
