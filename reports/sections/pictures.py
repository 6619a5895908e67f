"""What the models make of images."""

from __future__ import annotations

from reports.page import gallery
from reports.page.blocks import Block, Galleries, How, Section, Words
from reports.page.context import Context

HOW = (
    "The first finished seed of each setting, not the best one{limit}. Reconstructions pass through one-hot samples, "
    "as at test time; prior samples decode codes drawn from the uniform prior. Traversals: one test image’s most "
    "probable code, a row for each of the variables that say most, a column for each class that the variable could "
    "have."
)
HOW_OTHER = "What the task shows of some test examples: the first finished seed of each setting, not the best one."


def section(context: Context) -> Section:
    """Show originals once, then reconstructions, prior samples and traversals of each setting."""
    found = gallery.galleries(context.runs)
    if not context.wording.is_vae:
        none: list[Block] = [Words("No finished run has pictures.", "empty")]
        return Section(
            "pictures", "Pictures", [Galleries(found, "Test examples, as they are"), How(HOW_OTHER)] if found else none
        )
    if not found:
        text = "No finished run has pictures (evaluation.n_images in the grid)."
        return Section("pictures", "Reconstructions and samples", [Words(text, "empty")])
    n, most = len(gallery.pictured(context.runs)), gallery.MAX_SETTINGS
    limit = f"; {most} of {n} settings are shown, the first of every estimator in turn" if n > most else ""
    return Section("pictures", "Reconstructions and samples", [Galleries(found), How(HOW.format(limit=limit))])
