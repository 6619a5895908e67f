"""Events in MLflow: complete, once each, and no obstacle to the sweep."""

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from outages import IN_CHARTS
from PIL import Image as PILImage
from stores_that_fail import free_port, wait_for
from tracked_runs import PNG, finished_attempt, open_sweep

from harness import tracking
from harness.events import (
    Diverged,
    EpochDone,
    Failed,
    Finished,
    Interrupted,
    Latents,
    Picture,
    Record,
    Skipped,
    Started,
)
from harness.grid.load import Grid
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import Span
from harness.tracking import StoreUnavailableError, Tracker, TrackingError, databases, records


def write(tracker: Tracker, attempt: Attempt) -> None:
    for i, record in enumerate(attempt.records):
        tracker.write([record], Attempt(attempt.records[: i + 1]))


def children(tracker: Tracker) -> list:
    client = MlflowClient(tracking_uri=tracker.uri)
    return list(client.search_runs([tracker.experiment_id], filter_string="tags.`harness.kind` = 'run'"))


def artifact(run, name: str) -> Path:
    return Path(urlsplit(run.info.artifact_uri).path) / name


@pytest.mark.parametrize("together", [True, False])
def test_a_finished_run_has_tags_params_metrics_and_files(tracker: Tracker, grid: Grid, together: bool) -> None:
    run, attempt = grid.runs[0], finished_attempt(grid.runs[0].key)
    tracker.write(attempt.records, attempt) if together else write(tracker, attempt)
    (child,) = children(tracker)
    identity = {"estimator": "straight_through", "schedule": "constant(1)", "device": "cpu", "seed": "0"}
    identity |= {"run_key": run.key, "grid": "small"}
    assert identity.items() <= child.data.tags.items()
    assert identity.items() <= child.data.params.items()
    assert child.data.params["training.lr"] == "0.001"
    assert child.data.tags["mlflow.parentRunId"] == tracker.parent_id
    assert (child.data.tags["harness.status"], child.info.status) == ("finished", "FINISHED")
    assert (child.info.start_time, child.info.end_time) == (1000, 1004)
    assert child.data.metrics == {"train/loss": 2.0, "test/neg_elbo": 1.5}
    rows = json.loads(artifact(child, "history.json").read_text())
    assert rows == [
        {"epoch": 1, "step": 5, "elapsed_s": 0.5, "train/loss": 3.0},
        {"epoch": 2, "step": 10, "elapsed_s": 1.0, "train/loss": 2.0},
    ]
    assert json.loads(artifact(child, "config.json").read_text())["seed"] == 0
    assert json.loads(artifact(child, "provenance.json").read_text()) == {"torch": "2"}
    assert artifact(child, "pictures/originals.png").read_bytes() == PNG
    assert len(list(artifact(child, "images").iterdir())) == 2  # for the UI: with the step, and small


def test_records_written_together_need_few_calls(tracker: Tracker, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str):
        method = getattr(tracker._client, name)
        return lambda *given, **named: (calls.append(name), method(*given, **named))[1]

    names = [name for name in dir(tracker._client) if name.startswith(("create_", "log_", "set_", "update_"))]
    for name in names:
        monkeypatch.setattr(tracker._client, name, counted(name))
    attempt = finished_attempt(grid.runs[0].key)
    del attempt.records[3]  # the picture
    tracker.write(attempt.records, attempt)
    assert calls == ["create_run", "log_inputs", "log_artifacts", "log_batch", "set_terminated"]


def test_batches_keep_the_order_and_the_limits_of_mlflow() -> None:
    entities = [Metric(f"m{i}", 0.0, 1, 1) for i in range(950)] + [Param(f"p{i}", "") for i in range(120)]
    entities += [RunTag("t", "")] * 30
    found = list(records.batches(entities))
    assert [entity for batch in found for entity in batch] == entities
    assert [len(batch) for batch in found] == [1000, 100]
    assert sum(isinstance(entity, Param) for entity in found[1]) == 70
    assert list(records.batches([])) == []
    assert [len(batch) for batch in records.batches([Param(f"p{i}", "") for i in range(120)])] == [100, 20]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (Failed("ValueError: no", "Traceback"), "FAILED"),
        (Diverged(3, "loss is nan"), "FAILED"),
        (Skipped("no cuda"), "KILLED"),
        (Interrupted("killed"), "KILLED"),
    ],
)
def test_every_other_end_has_its_status_and_reason(tracker: Tracker, grid: Grid, event, status: str) -> None:
    write(tracker, Attempt([Record(grid.runs[0].key, 1, event)]))
    (child,) = children(tracker)
    assert child.info.status == status
    assert child.data.tags["harness.status"] == event.kind
    assert child.data.tags["harness.error"] == event.error
    assert artifact(child, "error.txt").exists() == (event.kind == "failed")


def test_replaying_stores_nothing_twice(tracker: Tracker, grid: Grid, out: Path) -> None:
    attempts = {run.key: finished_attempt(run.key) for run in grid.runs}
    first, second, *_ = attempts.values()
    write(tracker, first)
    write(tracker, Attempt(second.records[:3]))  # the store was lost in the middle of this one
    for expected in (len(grid.runs) - 1, 0):
        again = Tracker(tracker.uri, out=out)
        open_sweep(again, grid)
        missing = again.missing(
            {key: Span(a.begun_ms, a.records[-1].time_ms) for key, a in attempts.items()}, thorough=True
        )
        assert len(missing) == expected
        for key in missing:
            again.write(attempts[key].records, attempts[key])
        assert again.parent_id == tracker.parent_id
        found = children(again)
        assert sorted(child.data.tags["run_key"] for child in found) == sorted(attempts)
        client = MlflowClient(tracking_uri=again.uri)
        for child in found:
            assert [m.step for m in client.get_metric_history(child.info.run_id, "train/loss")] == [5, 10]


def test_a_new_attempt_replaces_the_old_one(tracker: Tracker, grid: Grid) -> None:
    key = grid.runs[0].key
    write(tracker, Attempt([Record(key, 1, Failed("no"))]))
    write(tracker, finished_attempt(key, at=2000))
    (child,) = children(tracker)
    assert child.data.tags["harness.status"] == "finished"


def test_a_server_that_does_not_answer_is_one_line(out: Path) -> None:
    with pytest.raises(
        StoreUnavailableError, match=r"^tracking: expected an MLflow server at http://127.*another --tracking-uri\.$"
    ):
        Tracker(f"http://127.0.0.1:{free_port()}", out=out)


@pytest.mark.parametrize("uri", ["sqlite:////proc/no/such/place.db", "nonsense://x"])
def test_an_impossible_store_is_one_line(out: Path, uri: str) -> None:
    with pytest.raises(TrackingError, match=r"^tracking: expected an MLflow store at [^\n]*$"):
        Tracker(uri, out=out)


@pytest.mark.parametrize("uri", ["127.0.0.1:5123", "my.host:5000/mlflow", "htp://127.0.0.1:5123"])
def test_an_address_without_its_scheme_is_one_line(out: Path, uri: str) -> None:
    with pytest.raises(
        TrackingError, match=r"^tracking: expected http://, .* got '.*'\. .* such as http://[^\n]*\d+[^\n]*$"
    ):
        Tracker(uri, out=out)


def test_a_database_without_its_driver_is_one_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setattr("harness.tracking.connection.check_server", lambda uri: None)
    with pytest.raises(TrackingError, match=r"^tracking: expected the driver of .*a:\*+@h.*psycopg2[^\n]*$"):
        Tracker("postgresql+psycopg2://a:secret@h/d", out=out)


def test_default_store_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.default_uri(Path("results")) == f"sqlite:///{tmp_path}/results/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert tracking.default_uri(Path("results")) == "http://there"


def stated(run) -> dict[str, str]:
    return json.loads(run.data.tags["harness.sha256"])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("together", [True, False])
def test_every_file_of_a_run_has_its_checksum(tracker: Tracker, grid: Grid, together: bool) -> None:
    attempt = finished_attempt(grid.runs[0].key)
    tracker.write(attempt.records, attempt) if together else write(tracker, attempt)
    (child,) = children(tracker)
    names = ["config.json", "provenance.json", "pictures/originals.png", "history.json"]
    assert stated(child) == {name: sha256(artifact(child, name)) for name in names}
    parent = MlflowClient(tracking_uri=tracker.uri).get_run(tracker.parent_id)
    assert stated(parent) == {"grid.yaml": sha256(artifact(parent, "grid.yaml"))}


def png(shade: int) -> bytes:
    file = io.BytesIO()
    PILImage.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("together", [True, False])
def test_pictures_over_training_are_in_the_charts_and_the_last_one_is_the_artifact(
    tracker: Tracker, grid: Grid, together: bool
) -> None:
    shades = {5: png(50), 10: png(100), 20: png(200)}
    events = [Started({"torch": "2"})]
    for epoch, (step, shade) in enumerate(shades.items(), 1):
        events += [Picture("reconstructions", step, shade, final=step == 20), EpochDone(epoch, step, 0.5, {})]
    attempt = Attempt(
        [Record(grid.runs[0].key, 1000 + i, event) for i, event in enumerate([*events, Finished(20, {})])]
    )
    tracker.write(attempt.records, attempt) if together else write(tracker, attempt)
    (child,) = children(tracker)
    assert artifact(child, "pictures/reconstructions.png").read_bytes() == shades[20]
    assert stated(child)["pictures/reconstructions.png"] == hashlib.sha256(shades[20]).hexdigest()
    assert all(IN_CHARTS.fullmatch(f"images/{path.name}") for path in artifact(child, "images").iterdir())
    charts = artifact(child, "images").glob("*.png")
    shown = {int(re.search(r"step\W(\d+)", path.name)[1]): PILImage.open(path).getpixel((0, 0)) for path in charts}
    assert shown == {5: 50, 10: 100, 20: 200}


def test_of_final_pictures_with_one_name_the_last_is_kept(tracker: Tracker, grid: Grid) -> None:
    events = [Started({}), Picture("originals", 5, png(1)), Picture("originals", 10, png(2)), Finished(10, {})]
    attempt = Attempt([Record(grid.runs[0].key, 1000 + i, event) for i, event in enumerate(events)])
    tracker.write(attempt.records, attempt)
    (child,) = children(tracker)
    assert artifact(child, "pictures/originals.png").read_bytes() == png(2)
    assert stated(child)["pictures/originals.png"] == hashlib.sha256(png(2)).hexdigest()


@pytest.mark.parametrize("together", [True, False])
def test_latents_are_a_file_with_its_checksum_and_one_value_of_each_metric(
    tracker: Tracker, grid: Grid, together: bool
) -> None:
    latents = Latents([0.5], [1.75], [0.193], [0], [[0.8, 0.2]])
    epoch = EpochDone(1, 5, 0.5, {"latent/perplexity": 1.5, "val/soft_hard_gap": 3.0})
    events = [Started({}), epoch, latents, Finished(5, {"latent/perplexity": 1.75})]
    attempt = Attempt([Record(grid.runs[0].key, 1000 + i, event) for i, event in enumerate(events)])
    tracker.write(attempt.records, attempt) if together else write(tracker, attempt)
    (child,) = children(tracker)
    path = artifact(child, "latents.json")
    assert json.loads(path.read_text()) == {
        "kl": [0.5], "perplexity": [1.75], "entropy": [0.193], "dead_classes": [0], "usage": [[0.8, 0.2]]
    }  # fmt: skip
    assert stated(child)["latents.json"] == sha256(path)
    assert child.data.metrics == {"latent/perplexity": 1.75, "val/soft_hard_gap": 3.0}
    assert json.loads(artifact(child, "history.json").read_text())[0]["latent/perplexity"] == 1.5


def test_checksums_are_of_the_files_that_are_there(tracker: Tracker, grid: Grid) -> None:
    """The driver is ahead of the store: an attempt may hold records that are not written yet."""
    attempt = finished_attempt(grid.runs[0].key)
    tracker.write(attempt.records[:1], attempt)
    assert sorted(stated(children(tracker)[0])) == ["config.json", "provenance.json"]
    tracker.write(attempt.records[1:], attempt)
    assert len(stated(children(tracker)[0])) == 4


def test_checksums_are_right_while_the_driver_continues(
    tracker: Tracker, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is started again and has its next epoch while the store still uploads its interruption."""
    events = [Started({}), EpochDone(1, 5, 0.5, {}), Interrupted("crash", retrying=True)]
    later = [Started({}), EpochDone(2, 10, 1.0, {})]
    attempt = Attempt([Record(grid.runs[0].key, i, event) for i, event in enumerate(events, 1)])
    upload = tracker._files.log

    def slow(run_id: str, content: dict[str, bytes]) -> None:
        upload(run_id, content)
        attempt.records += [Record(grid.runs[0].key, i, event) for i, event in enumerate(later, 9)]

    monkeypatch.setattr(tracker._files, "log", slow)
    tracker.write(attempt.records[:3], attempt)
    (child,) = children(tracker)
    assert stated(child)["history.json"] == sha256(artifact(child, "history.json"))
    assert "harness.starts" not in child.data.tags


def test_a_failed_run_has_the_checksum_of_its_traceback(tracker: Tracker, grid: Grid) -> None:
    write(tracker, Attempt([Record(grid.runs[0].key, 1, Failed("ValueError: \udcff", "Traceback \udcff"))]))
    (child,) = children(tracker)
    assert child.data.tags["harness.error"] == r"ValueError: \udcff"  # one such text must not lose the whole store
    assert stated(child)["error.txt"] == sha256(artifact(child, "error.txt"))


def test_the_checksums_fit_into_a_tag() -> None:
    names = ["config.json", "provenance.json", "history.json", "latents.json", "error.txt"]
    names += [f"pictures/{name}.png" for name in ("originals", "reconstructions", "prior_samples", "traversals")]
    assert len(records.checksum_tag(dict.fromkeys(names, records.sha256(b""))).value) < 1000


def test_a_picture_cannot_leave_its_folder(tracker: Tracker, grid: Grid, tmp_path: Path) -> None:
    """A journal on a shared disk may have been written by somebody else."""
    for name in ("../../escaped", "../../../../escaped"):
        attempt = Attempt([Record(grid.runs[0].key, 1, Picture(name, 1, PNG))])
        with pytest.raises(TrackingError, match=r"^tracking: expected the name of a file below its run, got [^\n]*\.$"):
            tracker.write(attempt.records, attempt)
    assert not list(tmp_path.rglob("escaped*"))


# --- making a database ----------------------------------------------------------------------------------------------

MAKE = """
import sys
from pathlib import Path
from harness.tracking import Tracker
print("ready", flush=True)
sys.stdin.readline()
Tracker(f"sqlite:///{sys.argv[1]}", out=Path(sys.argv[1]).parent)
"""


def maker(path: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"TMPDIR": str(path.parent)} if path.parent.exists() else None
    command = [sys.executable, "-c", MAKE, str(path)]
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert made.stdout is not None
    assert made.stdout.readline() == b"ready\n"
    return made


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_a_process_that_is_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    """One is there at once, or never: a half made one would be broken for good."""
    path = tmp_path / "mlflow.db"
    process = maker(path)
    go(process)
    wait_for(lambda: any(file.stat().st_size > 100_000 for file in tmp_path.rglob("mlflow.db")))
    process.kill()
    process.communicate()
    assert not path.exists()
    Tracker(f"sqlite:///{path}", out=tmp_path)
    assert path.exists()


@pytest.mark.slow
def test_two_processes_that_create_one_database_at_once_share_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "mlflow.db"
    both = [maker(path), maker(path)]
    for process in both:
        go(process)
    assert [(process.communicate(), process.returncode)[1] for process in both] == [0, 0]
    assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]


def test_a_database_does_not_replace_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for refuses in (False, True):
        path = tmp_path / f"there-{refuses}"
        for content in (b"first", b"second"):
            if refuses:
                monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
            databases._move_into_place(content, path)
        assert path.read_bytes() == b"first"
    assert not list(tmp_path.glob(".*"))


def test_a_half_created_database_is_no_outage(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.db"
    shutil.copy(out / "mlflow.db", path)
    with closing(sqlite3.connect(path)) as database:
        database.executescript("DROP TABLE metrics; UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(TrackingError, match=r"incomplete: move its file away and let `harness sync` fill[^\n]*$"):
        Tracker(f"sqlite:///{path}", out=out)
