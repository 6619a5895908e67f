"""The description of a sweep's parent run, which MLflow shows as Markdown: ours, unless somebody has edited it."""

from collections.abc import Mapping

from mlflow.entities import RunTag

from harness.tracking.records import sha256
from reports.contract.stored_run import REPORT_FILE, TAG_NOTE, TAG_NOTE_CHECKSUM, TAG_REPORT
from reports.contract.text import visible

_LONGEST = 7900  # MLflow cuts a tag at 8,000 in silence


def note_tags(tags: Mapping[str, str], note: str) -> list[RunTag]:
    """Return the tags that give a run this note; none where there is nothing to say, or somebody else's note.

    `tags` are those that the run has. Where a report was attached, the note says so.
    """
    former, full = tags.get(TAG_NOTE, ""), f"{note}{about_report(tags.get(TAG_REPORT, ''))}"[:_LONGEST]
    if not full or (former and sha256(former.encode()) != tags.get(TAG_NOTE_CHECKSUM)):
        return []
    return [RunTag(TAG_NOTE, full), RunTag(TAG_NOTE_CHECKSUM, sha256(full.encode()))]


def report_tags(tags: Mapping[str, str], when: str) -> list[RunTag]:
    """Return the tags of a run to which a report is attached now; a note that was edited is left alone."""
    note = tags.get(TAG_NOTE, "").removesuffix(about_report(tags.get(TAG_REPORT, "")))
    return [*note_tags({**tags, TAG_REPORT: when}, note), RunTag(TAG_REPORT, when)]


def about_report(when: str) -> str:
    """Return the last paragraph of a note; nothing where there is no report."""
    shown = "".join(c for c in visible(when, 40) if c.isalnum() or c in " -:")
    return f"\n\nThe report of {shown} is the artifact `{REPORT_FILE}` of this run (tab Artifacts)." if shown else ""
