"""The description of a sweep's parent run, which MLflow shows as Markdown: ours, unless somebody has edited it."""

from collections.abc import Mapping

from mlflow.entities import RunTag

from harness.tracking.records import sha256
from reports.contract.stored_run import REPORT_FILE, TAG_DESCRIPTION, TAG_DESCRIPTION_CHECKSUM, TAG_REPORT
from reports.contract.text import visible

LONGEST_TAG = 7900  # MLflow silently cuts a tag at 8,000


def description_tags(tags: Mapping[str, str], description: str) -> list[RunTag]:
    """Return the tags that give a run this description; none if there is nothing to say or the description was edited.

    `tags` are those that the run has. If a report was attached, the description says so.
    """
    previous, full = (
        tags.get(TAG_DESCRIPTION, ""),
        f"{description}{report_paragraph(tags.get(TAG_REPORT, ''))}"[:LONGEST_TAG],
    )
    if not full or (previous and sha256(previous.encode()) != tags.get(TAG_DESCRIPTION_CHECKSUM)):
        return []
    return [RunTag(TAG_DESCRIPTION, full), RunTag(TAG_DESCRIPTION_CHECKSUM, sha256(full.encode()))]


def report_tags(tags: Mapping[str, str], when: str) -> list[RunTag]:
    """Return the tags of a run to which a report is attached now. A description that was edited is left alone."""
    description = tags.get(TAG_DESCRIPTION, "").removesuffix(report_paragraph(tags.get(TAG_REPORT, "")))
    return [*description_tags({**tags, TAG_REPORT: when}, description), RunTag(TAG_REPORT, when)]


def report_paragraph(when: str) -> str:
    """Return the last paragraph of a description, or an empty text if there is no report."""
    shown = "".join(c for c in visible(when, 40) if c.isalnum() or c in " -:")
    return f"\n\nThe report of {shown} is the artifact `{REPORT_FILE}` of this run (tab Artifacts)." if shown else ""
