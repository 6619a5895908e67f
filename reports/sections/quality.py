"""The numbers: every setting, and every setting against the baseline."""

from __future__ import annotations

from reports.page import quality_tables
from reports.page.blocks import Block, Heading, How, Section, Tabular, Words
from reports.page.context import Context
from reports.page.wording import directions

HOW = (
    "{Lower} is better. Mean and its interval are of the finished runs; median and IQM count a failed or diverged run "
    "as worst, {worst}, and a setting with such a run ranks after all others. Seeds move all settings together, so the "
    "intervals of two means may overlap although every seed agrees: judge by the paired differences, where "
    "{improvement} on the baseline. “floor” stands where so few pairs could never give a p of "
    ".05, with the smallest that they allow. A click on a heading sorts; on ? it leads to the definition. The same "
    "tables are in tables/ as CSV, Markdown and LaTeX."
)


def section(context: Context) -> Section:
    """Show two tables per metric."""
    if not context.metrics:
        return Section(
            "quality", "Quality", [Words(f"{context.without_numbers}, so there are no numbers yet.", "empty")]
        )
    blocks: list[Block] = []
    for metric in context.metrics:
        levels, differences = context.levels(metric), context.differences(metric)
        blocks.append(Heading(metric.title, metric.meaning))
        blocks.append(
            Tabular(quality_tables.levels_table(levels, metric), "quality", levels.assign(metric=metric.name))
        )
        if len(differences):
            table = quality_tables.differences_table(differences, metric, context.baseline.label)
            blocks.append(Tabular(table, "differences", differences.assign(metric=metric.name)))
    return Section("quality", "Quality", [*blocks, How(HOW.format(**directions(context.metrics)))])
