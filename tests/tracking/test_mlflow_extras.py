"""What MLflow shows beside metrics: descriptions, the attached report, best runs, data sets, the machine."""

import hashlib
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fake_tracker import FakeTracker, Said, attempt_of, new_store, write
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from outages import synced_sweep, uri_of
from tracked_runs import finished_attempt

import harness.sweep.store_thread
from harness import tracking
from harness.config import DataConfig
from harness.datasets.descriptions import DATASETS
from harness.status.sweep_description import StoreSummary
from harness.tracking import Tracker, TrackingError
from harness.tracking.best_runs import tag_best
from harness.tracking.data_inputs import dataset_parts
from harness.tracking.description_tags import description_tags, report_tags
from harness.tracking.system_metrics import SHARE, SystemMetrics
from reports.contract.stored_run import TAG_DESCRIPTION, TAG_REPORT


def as_tags(tags: list[RunTag]) -> dict[str, str]:
    return {tag.key: tag.value for tag in tags}


# --- descriptions ---------------------------------------------------------------------------------------------------


def test_a_description_is_replaced_unless_somebody_edited_it() -> None:
    first = as_tags(description_tags({}, "one"))
    second = as_tags(description_tags(first, "two"))
    assert (first[TAG_DESCRIPTION], second[TAG_DESCRIPTION]) == ("one", "two")
    assert description_tags({**second, TAG_DESCRIPTION: "mine"}, "three") == []
    assert description_tags({TAG_DESCRIPTION: "mine, without a checksum"}, "three") == []


def test_a_description_mentions_an_attached_report_once() -> None:
    tags = as_tags(description_tags({}, "one"))
    for when in ("2030-01-01 10:00 UTC", "2031-01-01 10:00 UTC"):
        tags |= as_tags(report_tags(tags, when))
        assert tags[TAG_DESCRIPTION].startswith(f"one\n\nThe report of {when} is the artifact `report/report.html`")
        assert tags[TAG_DESCRIPTION].count("report/report.html") == 1
    assert as_tags(description_tags(tags, "two"))[TAG_DESCRIPTION].count("report/report.html") == 1
    edited = {**tags, TAG_DESCRIPTION: "mine"}
    assert as_tags(report_tags(edited, "now")) == {TAG_REPORT: "now"}


def parent(tracker: Tracker):
    return MlflowClient(tracking_uri=tracker.uri).get_run(tracker.parent_id)


def test_a_sweep_has_its_description_when_it_opens_and_closes(tracker, grid) -> None:
    tracker.open_sweep(name=grid.name, sweep_id="s1", runs=grid.runs, tags={}, files={}, description="under way")
    assert parent(tracker).data.tags[TAG_DESCRIPTION] == "under way"
    tracker.close_sweep("FINISHED", {}, {}, StoreSummary("done"))
    assert parent(tracker).data.tags[TAG_DESCRIPTION] == "done"


# --- the attached report --------------------------------------------------------------------------------------------


def written_report(folder: Path, text: str = "<p>report") -> Path:
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "tables" / "quality.csv").write_text("a,b\n")
    (folder / "tables" / "secret").write_text("not a table")
    (folder / "report.html").write_text(text)
    return folder / "report.html"


def test_a_report_is_attached_with_its_checksum_and_replaced(out: Path) -> None:
    synced_sweep(out, 1)
    client = MlflowClient(tracking_uri=uri_of(out))
    for text in ("first", "second"):
        run_id = tracking.attach(uri_of(out), "away", written_report(out / "page", text)).run_id
        run = client.get_run(run_id)
        assert run.data.tags["harness.kind"] == "sweep"
        assert Path(client.download_artifacts(run_id, "report/report.html")).read_text() == text
        stated = json.loads(run.data.tags["harness.sha256"])
        assert stated["report/report.html"] == hashlib.sha256(text.encode()).hexdigest()
        assert set(stated) == {
            *("grid.yaml", "plan.json", "provenance.json"),
            *("report/report.html", "report/tables/quality.csv"),
        }
        assert "report/report.html" in run.data.tags[TAG_DESCRIPTION]


def test_a_report_without_a_sweep_is_one_line(out: Path) -> None:
    with pytest.raises(TrackingError, match=r"^tracking: expected a sweep of 'away' to attach[^\n]*got none\.$"):
        tracking.attach(uri_of(out), "away", written_report(out))


def test_a_server_cannot_choose_where_on_this_machine_a_report_goes(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced_sweep(out, 1)
    uri, there = uri_of(out), out / "artifacts"
    before = sorted(there.rglob("*"))
    client = MlflowClient(tracking_uri=uri)
    monkeypatch.setattr("harness.tracking.attached_report.check_server", lambda uri: None)
    monkeypatch.setattr("harness.tracking.attached_report.MlflowClient", lambda tracking_uri: client)
    with pytest.raises(TrackingError, match=r"^tracking: expected a server that keeps files itself, got [^\n]*$"):
        tracking.attach("http://127.0.0.1:1", "away", written_report(out / "page"))
    assert sorted(there.rglob("*")) == before


# --- the best runs --------------------------------------------------------------------------------------------------


def test_the_best_run_of_each_estimator_has_the_tag_alone(
    tracker,
    grid,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for run in grid.runs:
        attempt = finished_attempt(run.key)
        tracker.write(attempt.records, attempt)
    names = [run.estimator.name for run in grid.runs]
    st, rloo = names.index("straight_through"), names.index("rloo")
    client, calls = tracker._client, list[str]()
    for name in ("set_tag", "delete_tag"):
        method = getattr(client, name)
        monkeypatch.setattr(
            client, name, lambda *a, name=name, method=method, **k: (calls.append(name), method(*a, **k))[1]
        )

    def told(**best: int) -> dict[str, str]:
        calls.clear()
        keys = {name: grid.runs[index].key for name, index in best.items()}
        tag_best(client, tracker._runs, tracker.parent_id, keys)
        found = client.search_runs([tracker.experiment_id], "tags.`harness.best` != ''")
        assert {run.data.tags["harness.best"]: run.data.tags["run_key"] for run in found} == keys
        assert len(found) == len(keys)
        return keys

    told(straight_through=st, rloo=rloo)
    assert calls == ["set_tag", "set_tag"]
    told(straight_through=st, rloo=rloo)
    assert calls == []
    told(straight_through=st, rloo=len(names) - 1 - names[::-1].index("rloo"))
    assert calls == ["delete_tag", "set_tag"]
    told(straight_through=st)
    assert calls == ["delete_tag"]


# --- data sets ------------------------------------------------------------------------------------------------------


def test_a_run_names_its_data_with_digest_context_and_source(tracker, grid) -> None:
    attempt = finished_attempt(grid.runs[0].key)
    for _ in range(2):
        tracker.write(attempt.records, attempt)
    client = MlflowClient(tracking_uri=tracker.uri)
    (child,) = client.search_runs([tracker.experiment_id], "tags.`harness.kind` = 'run'")
    given = {entry.tags[0].value: entry.dataset for entry in child.inputs.dataset_inputs}
    assert set(given) == {"training", "test"}
    assert len(child.inputs.dataset_inputs) == 2
    for part in dataset_parts(grid.runs[0].data):
        dataset = given[part.context]
        assert (dataset.name, dataset.digest) == ("mnist-mini", part.digest[:8])
        assert json.loads(dataset.source)["tags"]["harness.digest"] == part.digest
        assert (
            json.loads(dataset.profile)["num_rows"] == part.n_images == {"training": 3600, "test": 1000}[part.context]
        )


@pytest.mark.parametrize("name", DATASETS)
def test_digests_differ_where_the_images_do(name: str) -> None:
    def digests(**settings: object) -> list[str]:
        return [part.digest for part in dataset_parts(DataConfig.model_validate({"name": name, **settings}))]

    train, test = digests()
    assert train != test
    assert digests(train_size=50)[0] != train
    assert digests(train_size=50)[1] == test
    if name == "mnist-binarized":  # binary, with validation images of its own: nothing is split or drawn
        return
    assert digests(split_seed=1)[0] != train
    assert digests(split_seed=1)[1] == test
    assert digests(binarization="fixed")[1] != test
    assert digests(binarization="fixed")[1] == digests(binarization="resampled")[1]
    assert digests(binarization="fixed", split_seed=1)[1] != digests(binarization="fixed")[1]


# --- the machine ----------------------------------------------------------------------------------------------------


def test_system_metrics_have_mlflows_names_and_are_thinned_out() -> None:
    now = [0.0]
    system = SystemMetrics(0, clock=lambda: now[0])
    points: list[float] = []
    while now[0] < 7 * 24 * 3600:
        if found := system.due():
            points.append(now[0])
            assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= {
                metric.key for metric in found
            }
        now[0] += 10 if now[0] < 10_000 else 300
    assert points[0] == 10
    assert 500 < len(points) < 3500
    assert points[-1] - points[-2] >= SHARE * points[-2]


class Machine(FakeTracker):
    """A tracker that counts how often it is asked to write the machine's state, and refuses."""

    asked = 0

    def write_system(self) -> None:
        self.asked += 1
        raise MlflowException("no curve today")


def test_a_curve_that_cannot_be_written_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.sweep.store_thread, "IDLE_S", 0.01)
    machine, said = Machine(), Said()
    with new_store(machine, said) as store:
        store._is_open = True
        time.sleep(0.2)
        write(store, attempt_of("run"))
        store.close("FINISHED", {})
    assert machine.asked > 2
    assert said.lines == []
    assert len(machine.written) > 0
    assert machine.closed == ["FINISHED"]


def test_system_metrics_are_not_written_before_the_sweep_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.sweep.store_thread, "IDLE_S", 0.01)
    machine = Machine()
    with new_store(machine) as store:
        time.sleep(0.1)
        write(store, attempt_of("run"))
    assert machine.asked == 0


def test_the_parent_run_has_the_curves(tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.system_metrics.WRITE_EVERY_S", 0.0)
    tracker.write_system()
    assert parent(tracker).data.metrics["system/system_memory_usage_percentage"] > 0


def test_the_experiment_is_shown_as_one_of_training_runs(tracker) -> None:
    experiment = MlflowClient(tracking_uri=tracker.uri).get_experiment(tracker.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert urlsplit(experiment.artifact_location).scheme == "file"
