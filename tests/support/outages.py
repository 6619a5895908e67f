"""What the tests of outages share: a made-up sweep, a store that writes in the caller's thread, and what must hold."""

import io
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils
from PIL import Image

from estimators import REGISTRY
from harness.config import RunConfig
from harness.events import (
    Diverged,
    EpochDone,
    Event,
    Failed,
    Finished,
    Interrupted,
    Latents,
    Picture,
    Record,
    Started,
    Weights,
)
from harness.grid.load import Grid, load_grid
from harness.options import Options
from harness.status.sweep_description import best_runs
from harness.storage.attempt import Attempt
from harness.storage.journal import Journal
from harness.storage.sweep_state import read_sweep
from harness.storage.weight_files import WeightFiles
from harness.sweep.replay import sync_store, with_content
from harness.sweep.store_thread import StoreThread, _Queued
from harness.tracking import Tracker

CODE = {
    "source_sha256": "a" * 64,
    "packages": {"torch": "2", "argmax-harness": "1"},
    "git_commit": None,
    "git_dirty": 0,
}
ENDED = {"finished": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "interrupted": "KILLED", "skipped": "KILLED"}

IN_CHARTS = re.compile(r"images/([^/+%]+)([+%])step\2\d+\2timestamp\2\d+\2[^+%]+(\2compressed\.webp|\.png)")
"""A name that MLflow's charts can read; they show no picture of a run that has another one among these."""


class NothingKept(OrderedDict[str, object]):
    def __setitem__(self, key: str, value: object) -> None: ...


def forget_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow's client ask for the place of a run's files each time; else it remembers it as long as it lives."""
    monkeypatch.setattr(utils, "_artifact_repos_cache", NothingKept())


class Said:
    """A progress display that keeps the printed lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def outages(self) -> int:
        return sum("stopped answering" in line for line in self.lines)


class InlineStore(StoreThread):
    """Writes in the caller's thread, so many records at a time: outages hit where a test wants them."""

    size = 1

    def __enter__(self) -> "InlineStore":
        self._waiting: list[_Queued] = []
        return self

    def write(self, record: Record, attempt: Attempt) -> None:
        self._waiting.append(_Queued(record, attempt))
        if len(self._waiting) >= self.size:
            self._drain()

    def _drain(self) -> None:
        items, self._waiting = self._waiting, []
        if items:
            self._call_store(lambda: self._write(items))


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


def small_grid(folder: Path, seeds: int = 3) -> Grid:
    path = folder / "away.yaml"
    path.write_text(f"name: away\nestimators: [straight_through]\nseeds: {{count: {seeds}}}\n")
    return load_grid(path, REGISTRY)


def epoch(number: int) -> EpochDone:
    return EpochDone(number, number * 5, number / 2, {"train/loss": 1 / number, "time/step_s": 0.1})


def whole(run: RunConfig) -> list[Event]:
    early, picture = Picture("originals", 5, png(100 + run.seed), final=False), Picture("originals", 10, png(run.seed))
    latents = Latents([0.5], [1.75], [0.193], [0], [[0.8, 0.2]])
    end = Finished(10, {"test/neg_elbo": 1.5, "train/loss": 0.5})
    return [Started(CODE), epoch(1), early, epoch(2), picture, latents, end]


def continued(run: RunConfig) -> list[Event]:
    """Cut short twice, then finished, and its weights were asked for: one attempt."""
    started, first, *rest, end = whole(run)
    before = [started, Interrupted("stopped"), started, first, Interrupted("killed", retrying=True)]
    return [*before, started, *rest, Weights(10, b"weights"), end]


def retried(run: RunConfig) -> list[Event]:
    """A failed attempt and the one that replaces it."""
    return [Started(CODE), epoch(1), Failed("ValueError: no", "Traceback"), *whole(run)]


def diverged(run: RunConfig) -> list[Event]:
    return [Started(CODE), epoch(1), Diverged(7, "the loss is nan")]


def made_up_records(runs: Sequence[RunConfig]) -> list[Record]:
    """The records of a sweep with every fate of a run, the runs side by side."""
    fates = (continued, retried, diverged, whole)
    lives = [(run.key, fates[i % len(fates)](run)) for i, run in enumerate(runs)]
    longest = max(len(events) for _, events in lives)
    ordered = [(key, events[i]) for i in range(longest) for key, events in lives if i < len(events)]
    return [Record(key, 1_000_000 + 10 * i, event) for i, (key, event) in enumerate(ordered)]


def play(
    grid: Grid,
    out: Path,
    connect: Callable[[], Tracker],
    *,
    kind: type[StoreThread] = InlineStore,
    size: int = 1,
    before: Callable[[int], None] = lambda i: None,
    said: Said | None = None,
    options: Options | None = None,
) -> Said:
    """Carry the records that the journal lacks, as the driver does; `before` is called with the number of each."""
    said = said or Said()
    options = options or Options(out=out, workers=1)
    (out / grid.name).mkdir(parents=True, exist_ok=True)
    with Journal(out / grid.name) as journal:
        sweep = read_sweep(grid, out)
        done = sum(1 for _ in journal.read())
        store = kind(connect, said)  # type: ignore[arg-type]
        if isinstance(store, InlineStore):
            store.size = size
        with store:
            store.open(sweep, options)
            for i, record in enumerate(made_up_records(grid.runs)[done:], done):
                before(i)
                record = put_aside(record, sweep.folder)
                journal.append(record)
                store.write(record, sweep.add(record))
            store.close("FINISHED", sweep.counts())
    return said


def put_aside(record: Record, folder: Path) -> Record:
    """Keep weights in their file, as the driver does."""
    if not isinstance(record.event, Weights):
        return record
    assert WeightFiles(folder).save(record.run_key, record.event)
    return replace(record, event=replace(record.event, content=b""))


def replay(grid: Grid, out: Path, uri: str) -> int:
    """What `harness sync` does."""
    return sync_store(Tracker(uri, out=out), read_sweep(grid, out))


def check(grid: Grid, out: Path, uri: str) -> None:
    """Every run once, every step of every metric once, every picture once, and all of it as the journal says."""
    sweep, client = read_sweep(grid, out), MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(grid.name)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["harness.kind"] == "sweep"]
    assert parent.info.status != "RUNNING"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "grid.yaml",
        "plan.json",
        "provenance.json",
    }
    assert "**Ended:** " in parent.data.tags["mlflow.note.content"]
    children = {run.data.tags["run_key"]: run for run in runs if run is not parent}
    best = [run.data.tags["run_key"] for run in runs if "harness.best" in run.data.tags]
    assert best == list(best_runs(sweep).values())
    assert len(children) == len(runs) - 1, Counter(run.data.tags["run_key"] for run in runs if run is not parent)
    assert set(children) == set(sweep.ends)
    newest = newest_attempts(grid, out)
    for key, child in children.items():
        assert child.data.tags["harness.sweep"] == child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        check_child(client, child, newest[key])


def newest_attempts(grid: Grid, out: Path) -> dict[str, Attempt]:
    from harness.storage.attempt import newest_attempts

    journal = Journal(out / grid.name)
    return newest_attempts(with_content(record, journal) for record in journal.read())


def check_child(client: MlflowClient, child: Any, attempt: Attempt) -> None:
    events = [record.event for record in attempt.records]
    tags, end, run_id = child.data.tags, attempt.end, child.info.run_id
    assert end is not None
    assert (tags["harness.status"], child.info.status) == (end.kind, ENDED[end.kind])
    assert (child.info.start_time, child.info.end_time) == (attempt.begun_ms, attempt.records[-1].time_ms)
    assert tags["harness.attempt"] == str(attempt.begun_ms)
    assert tags["harness.end"] == str(attempt.records[-1].time_ms)
    assert tags.get("harness.error", "") == getattr(end, "error", "")
    starts = sum(isinstance(event, Started) for event in events)
    assert tags.get("harness.starts", "1") == str(starts)
    assert child.data.params["run_key"] == tags["run_key"]
    data = sorted((given.tags[0].value, given.dataset.name) for given in child.inputs.dataset_inputs)
    assert data == [("test", "mnist-mini"), ("training", "mnist-mini")]
    check_metrics(client, run_id, attempt)
    check_files(client, run_id, attempt)


def check_metrics(client: MlflowClient, run_id: str, attempt: Attempt) -> None:
    expected: dict[str, list[tuple[int, int, float]]] = {}
    for record in attempt.records:
        event = record.event
        if isinstance(event, EpochDone | Finished):
            for name, value in event.metrics.items():
                if isinstance(event, Finished):  # one value a run, at step 0
                    expected.setdefault(name, []).append((record.time_ms, 0, value))
                elif not name.startswith(("time/", "latent/")):  # those of a run are its last
                    expected.setdefault(name, []).append((record.time_ms, event.step, value))
    for name, points in expected.items():
        history = client.get_metric_history(run_id, name)
        assert sorted((m.timestamp, m.step, m.value) for m in history) == sorted(points), name


def check_model(client: MlflowClient, run_id: str, attempt: Attempt) -> None:
    """The weights are an artifact, and one model that is ready says so, where they were asked for."""
    stored = client.get_run(run_id)
    models = client.search_logged_models([stored.info.experiment_id], f"source_run_id = '{run_id}'")
    if not any(isinstance(record.event, Weights) for record in attempt.records):
        assert not models
        return
    (model,) = models
    assert (model.status, model.params["seed"]) == ("READY", stored.data.params["seed"])
    assert {metric.key: metric.value for metric in model.metrics} == attempt.end.metrics
    assert [output.model_id for output in stored.outputs.model_outputs] == [model.model_id]
    assert Path(client.download_artifacts(run_id, "model/weights.pt")).read_bytes() == b"weights"


def check_files(client: MlflowClient, run_id: str, attempt: Attempt) -> None:
    images = [record.event for record in attempt.records if isinstance(record.event, Picture)]
    check_model(client, run_id, attempt)
    names = {file.path for file in client.list_artifacts(run_id)}
    assert {"config.json", "provenance.json", "history.json"} <= names
    assert ("error.txt" in names) == bool(getattr(attempt.end, "traceback", ""))
    rows = json.loads(Path(client.download_artifacts(run_id, "history.json")).read_text())
    assert [row["epoch"] for row in rows] == [event.epoch for event in attempt.epochs]
    pictures = [file.path for file in client.list_artifacts(run_id, "images")] if images else []
    assert all(IN_CHARTS.fullmatch(path) for path in pictures), pictures
    endings = Counter(path.rpartition(".")[2] for path in pictures)
    assert endings == Counter({"png": len(images), "webp": len(images)} if images else {}), pictures  # each once
    final = [image for image in images if image.final]
    assert len(client.list_artifacts(run_id, "pictures")) == len({image.name for image in final})
    assert ("latents.json" in names) == any(isinstance(record.event, Latents) for record in attempt.records)
    for image in final:
        assert Path(client.download_artifacts(run_id, f"pictures/{image.name}.png")).read_bytes() == image.png
    assert ("mlflow.loggedImages" in client.get_run(run_id).data.tags) == bool(images)


def uri_of(out: Path) -> str:
    return f"sqlite:///{out / 'mlflow.db'}"


def synced_sweep(out: Path, seeds: int = 4):
    grid = small_grid(out.parent, seeds)
    play(grid, out, lambda: Tracker(uri_of(out), out=out), size=3)
    return grid
