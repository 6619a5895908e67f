"""The description of a sweep's parent run, which MLflow shows as Markdown: ours, unless somebody has edited it."""

from collections.abc import Mapping

from mlflow.entities import RunTag

from harness.tracking.records import sha256
from reports.contract.stored_run import REPORT_FILE, TAG_NOTE, TAG_NOTE_CHECKSUM, TAG_REPORT
from reports.contract.text import visible

LONGEST_TAG = 7900  # MLflow silently cuts a tag at 8,000


def note_tags(tags: Mapping[str, str], note: str) -> list[RunTag]:
    """Return the tags that give a run this note; none if there is nothing to say or the note was edited.

    `tags` are those that the run has. If a report was attached, the note says so.
    """
    previous, full = tags.get(TAG_NOTE, ""), f"{note}{report_paragraph(tags.get(TAG_REPORT, ''))}"[:LONGEST_TAG]
    if not full or (previous and sha256(previous.encode()) != tags.get(TAG_NOTE_CHECKSUM)):
        return []
    return [RunTag(TAG_NOTE, full), RunTag(TAG_NOTE_CHECKSUM, sha256(full.encode()))]


def report_tags(tags: Mapping[str, str], when: str) -> list[RunTag]:
    """Return the tags of a run to which a report is attached now. A note that was edited is left alone."""
    note = tags.get(TAG_NOTE, "").removesuffix(report_paragraph(tags.get(TAG_REPORT, "")))
    return [*note_tags({**tags, TAG_REPORT: when}, note), RunTag(TAG_REPORT, when)]


def report_paragraph(when: str) -> str:
    """Return the last paragraph of a note, or an empty text if there is no report."""
    shown = "".join(c for c in visible(when, 40) if c.isalnum() or c in " -:")
    return f"\n\nThe report of {shown} is the artifact `{REPORT_FILE}` of this run (tab Artifacts)." if shown else ""
