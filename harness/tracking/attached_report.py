"""The report of an experiment as artifacts of its newest sweep in MLflow."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mlflow.tracking import MlflowClient

from harness.tracking.databases import is_database, with_timeout
from harness.tracking.description_tags import LONGEST_TAG, report_tags
from harness.tracking.errors import TrackingError, check_server
from harness.tracking.files import Files
from harness.tracking.moved_results import follow_moved_files
from harness.tracking.records import checksum_tag, sha256, stated_checksums
from reports.contract.artifact_paths import local_path
from reports.contract.sqlite_uri import unambiguous
from reports.contract.stored_run import KIND_SWEEP, REPORT_FILE, REPORT_FOLDER, REPORT_TABLES, REPORT_TASKS, TAG_KIND
from reports.contract.text import NAME_LENGTH, visible

TABLES = (".csv", ".md", ".tex")


class Attached(NamedTuple):
    """The run that a report is attached to."""

    run_id: str
    run_name: str


def attach(uri: str, experiment: str, page: Path, results: Path | None = None) -> Attached:
    """Make report.html and the tables/ beside it artifacts of the newest parent run, and say so in its description.

    `results` is the folder in which the files of the runs may lie.

    Raises what is in STORE_ERRORS, and TrackingError if there is no sweep, or a server names a folder here.
    """
    uri = unambiguous(uri)
    check_server(uri)
    if is_database(uri):
        follow_moved_files(uri, results)
    client = MlflowClient(tracking_uri=with_timeout(uri))
    run = _newest_sweep(client, experiment)
    if urlsplit(uri).scheme in ("http", "https") and urlsplit(run.info.artifact_uri).scheme in ("", "file"):
        raise TrackingError(
            "tracking: expected a server that keeps files itself, got one that says they lie on this machine, at "
            f"{visible(run.info.artifact_uri, NAME_LENGTH)}. If they do, give the store itself as --tracking-uri."
        )
    folder = local_path(run.info.artifact_uri)
    if is_database(uri) and folder is not None and not folder.is_dir():
        raise TrackingError(
            f"tracking: expected the files of the sweep in {visible(str(folder), NAME_LENGTH)}, got no such folder. If "
            "the sweep is running and sees its results under another name, attach the report when it has ended."
        )
    files = dict(_files(page))
    Files(client).log(run.info.run_id, files)
    tags = run.data.tags
    others = {
        name: stated for name, stated in stated_checksums(tags).items() if not name.startswith(f"{REPORT_FOLDER}/")
    }
    checksums = checksum_tag(others | {name: sha256(content) for name, content in files.items()})
    if len(checksums.value) > LONGEST_TAG:  # MLflow would cut it, and then no checksum could be read
        checksums = checksum_tag(others | {REPORT_FILE: sha256(files[REPORT_FILE])})
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    client.log_batch(run.info.run_id, tags=[checksums, *report_tags(tags, when)], synchronous=True)
    return Attached(run.info.run_id, visible(run.info.run_name or "", NAME_LENGTH))


def _newest_sweep(client: MlflowClient, experiment: str) -> Any:
    """Return the parent run that began last. Raises TrackingError if there is none."""
    found = client.get_experiment_by_name(experiment)
    ids = [found.experiment_id] if found is not None else []
    order = ["attributes.start_time DESC"]
    runs = client.search_runs(ids, f"tags.`{TAG_KIND}` = '{KIND_SWEEP}'", max_results=1, order_by=order) if ids else []
    if not runs:
        raise TrackingError(
            f"tracking: expected a sweep of {visible(experiment, NAME_LENGTH)!r} to attach its report to, got none."
        )
    return runs[0]


def _files(page: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the report and its tables by the names of artifacts; of a sweep over tasks, also the page of each."""
    yield REPORT_FILE, page.read_bytes()
    for path in sorted((page.parent / "tables").glob("*")):
        if path.suffix in TABLES and path.is_file():
            yield f"{REPORT_TABLES}/{path.name}", path.read_bytes()
    for path in sorted((page.parent / "tasks").glob(f"*/{page.name}")):
        yield f"{REPORT_TASKS}/{path.parent.name}/{path.name}", path.read_bytes()
