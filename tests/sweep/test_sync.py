"""`harness sync` and `harness run` after the store was unavailable."""

import hashlib
import time
from pathlib import Path

import pytest
from command_line import assert_refused, grid_file, harness
from mlflow.tracking import MlflowClient
from outages import check, made_up_records, play, png, put_aside, replay, small_grid, synced_sweep, uri_of, whole
from stores_that_fail import Lock

from estimators import REGISTRY
from harness.events import Interrupted, Record
from harness.grid.load import load_grid
from harness.options import Options
from harness.status.sweep_description import summarize
from harness.storage.journal import Journal
from harness.storage.lease import Lease
from harness.storage.sweep_state import read_sweep
from harness.sweep.replay import open_store
from harness.tracking import Tracker
from reports.store.load import load


def children(out: Path) -> list:
    client = MlflowClient(tracking_uri=uri_of(out))
    experiment = client.get_experiment_by_name("away").experiment_id
    return list(client.search_runs([experiment], filter_string="tags.`harness.kind` = 'run'"))


def opened(out: Path, grid) -> tuple[Tracker, int]:
    tracker = Tracker(uri_of(out), out=out)
    return tracker, open_store(tracker, read_sweep(grid, out), Options(out=out, workers=1))


def test_a_replay_leaves_out_nothing_but_a_lost_picture(out: Path) -> None:
    grid = synced_sweep(out)
    lost, *others = (out / "away" / "images" / f"{hashlib.sha256(png(seed)).hexdigest()}.png" for seed in range(4))
    lost.write_bytes(lost.read_bytes()[:20])
    before = pictures(out)
    for child in children(out):
        MlflowClient(tracking_uri=uri_of(out)).delete_run(child.info.run_id)
    assert replay(grid, out, uri_of(out)) == 4
    after = pictures(out)
    assert others
    assert after.keys() == before.keys()
    assert sum(len(files) for files in before.values()) - sum(len(files) for files in after.values()) == 1


def pictures(out: Path) -> dict[str, list[str]]:
    """The final pictures of each run, by key."""
    client = MlflowClient(tracking_uri=uri_of(out))
    files = {run.data.tags["run_key"]: client.list_artifacts(run.info.run_id, "pictures") for run in children(out)}
    return {key: [file.path for file in found] for key, found in files.items()}


def test_sync_is_refused_while_the_sweep_has_a_driver(tmp_path: Path, out: Path) -> None:
    grid = synced_sweep(out)
    with Lease(out / grid.name):
        done = harness("sync", "--grid", tmp_path / "away.yaml", "--out", out)
    assert_refused(done, "expected no other driver on this sweep, got one")


def test_sync_without_a_journal_or_a_store_is_one_line(tmp_path: Path, out: Path) -> None:
    file = grid_file(tmp_path)
    assert_refused(harness("sync", "--grid", file, "--out", out), "expected the journal of a sweep, got none. Run the")
    assert not (out / "tiny").exists()
    synced_sweep(out)
    done = harness("sync", "--grid", tmp_path / "away.yaml", "--out", out, "--tracking-uri", "http://127.0.0.1:9")
    assert_refused(done, "^tracking: expected an MLflow server at .*The same command continues")


def test_a_store_that_has_everything_is_opened_without_reading_its_runs(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = synced_sweep(out)
    asked: list[str] = []
    search = MlflowClient.search_runs

    def recorded(client: MlflowClient, experiments: list[str], filter_string: str = "", **named: object):
        asked.append(filter_string)
        return search(client, experiments, filter_string, **named)

    monkeypatch.setattr(MlflowClient, "search_runs", recorded)
    tracker, replayed = opened(out, grid)
    assert replayed == 0
    assert not any("harness.sweep`" in each for each in asked)
    sweep = read_sweep(grid, out)
    tracker.close_sweep("FINISHED", sweep.counts(), sweep.ended_spans(), summarize(sweep, None, is_over=True))
    monkeypatch.undo()
    check(grid, out, uri_of(out))


def test_a_run_that_is_tried_again_replaces_the_one_that_was_not_read(out: Path) -> None:
    """The store's runs are looked up one by one where nothing had happened since it closed."""
    grid = synced_sweep(out)
    run = grid.runs[2]  # the diverged one
    tracker, _ = opened(out, grid)
    sweep = read_sweep(grid, out)
    with Journal(sweep.folder) as journal:
        for i, event in enumerate(whole(run)):
            record = Record(run.key, 2_000_000 + i, event)
            journal.append(record)
            tracker.write([record], sweep.add(record))
    tracker.close_sweep("FAILED", sweep.counts(), sweep.ended_spans(), summarize(sweep, None, is_over=True))
    check(grid, out, uri_of(out))
    assert replay(grid, out, uri_of(out)) == 0


def test_a_resumed_run_stays_the_same_stored_run(out: Path) -> None:
    grid = small_grid(out.parent, 1)
    (run,) = grid.runs
    records = made_up_records([run])
    assert isinstance(records[1].event, Interrupted)
    seen = []
    for part in (records[:2], records[2:5], records[5:]):
        sweep = read_sweep(grid, out)
        sweep.folder.mkdir(exist_ok=True)
        tracker, replayed = opened(out, grid)
        assert replayed == 0
        with Journal(sweep.folder) as journal:
            for record in part:
                journal.append(record)
                tracker.write([record], sweep.add(record))
        tracker.close_sweep("KILLED", sweep.counts(), sweep.ended_spans(), summarize(sweep, None, is_over=True))
        (child,) = children(out)
        seen.append((child.info.run_id, child.info.status, child.data.tags.get("harness.error")))
    assert len({run_id for run_id, *_ in seen}) == 1
    assert [rest for _, *rest in seen] == [["KILLED", "stopped"], ["KILLED", "killed"], ["FINISHED", ""]]
    check(grid, out, uri_of(out))


@pytest.mark.parametrize("told", [2, 5])
def test_a_run_resumed_and_finished_during_an_outage_is_stored_once(out: Path, told: int) -> None:
    """The store has the run up to one of its two interruptions."""
    grid = small_grid(out.parent, 1)
    (run,) = grid.runs
    tracker, _ = opened_new(out, grid)
    sweep = read_sweep(grid, out)
    with Journal(sweep.folder) as journal:
        for i, whole_record in enumerate(made_up_records([run])):
            record = put_aside(whole_record, sweep.folder)
            journal.append(record)
            attempt = sweep.add(record)
            if i < told:
                tracker.write([record], attempt)
    (before,) = children(out)
    assert (before.info.status, replay(grid, out, uri_of(out))) == ("KILLED", 1)
    (after,) = children(out)
    assert before.info.run_id == after.info.run_id
    check(grid, out, uri_of(out))
    assert replay(grid, out, uri_of(out)) == 0


def opened_new(out: Path, grid) -> tuple[Tracker, int]:
    (out / grid.name).mkdir()
    return opened(out, grid)


def test_sync_brings_back_what_was_deleted_in_mlflow(out: Path) -> None:
    grid = synced_sweep(out)
    MlflowClient(tracking_uri=uri_of(out)).delete_run(children(out)[0].info.run_id)
    assert opened(out, grid)[1] == 0  # a sweep does not look
    assert replay(grid, out, uri_of(out)) == 1
    check(grid, out, uri_of(out))


def parent_of(out: Path) -> str:
    return children(out)[0].data.tags["mlflow.parentRunId"]


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("with_children", [False, True])
def test_a_parent_that_was_deleted_in_mlflow_comes_back(out: Path, with_children: bool, thorough: bool) -> None:
    """With its runs, each once: by `harness sync` and by `harness run`."""
    grid, client = synced_sweep(out), MlflowClient(tracking_uri=uri_of(out))
    parent, deleted = parent_of(out), children(out) if with_children else []
    for run_id in (parent, *(child.info.run_id for child in deleted)):
        client.delete_run(run_id)
    if thorough:
        assert replay(grid, out, uri_of(out)) == len(deleted)
    else:
        tracker, replayed = opened(out, grid)
        assert replayed == len(deleted)
        sweep = read_sweep(grid, out)
        tracker.close_sweep("FINISHED", sweep.counts(), sweep.ended_spans(), summarize(sweep, None, is_over=True))
    assert parent_of(out) == parent
    check(grid, out, uri_of(out))
    assert replay(grid, out, uri_of(out)) == 0


def test_runs_of_a_deleted_parent_are_deleted_if_there_is_a_new_parent(out: Path) -> None:
    """As an older version of the harness left them."""
    grid, client = synced_sweep(out), MlflowClient(tracking_uri=uri_of(out))
    old = client.get_run(parent_of(out))
    client.create_run(old.info.experiment_id, tags=old.data.tags)
    client.delete_run(old.info.run_id)
    assert replay(grid, out, uri_of(out)) == len(grid.runs)
    check(grid, out, uri_of(out))


TAGS, VALUES = ("harness.attempt", "harness.end", "run_key"), (None, "", "soon", "9" * 5000, "-7", "99999999999999")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        pytest.param(tag, value, marks=[pytest.mark.slow] * (value is not None and (tag, value) != (TAGS[0], "soon")))
        for tag in TAGS
        for value in VALUES
    ],
)
def test_a_run_whose_tags_were_edited_is_replaced(out: Path, tag: str, value: str | None) -> None:
    grid, client = synced_sweep(out), MlflowClient(tracking_uri=uri_of(out))
    run_id = children(out)[1].info.run_id
    if value is None:
        client.delete_tag(run_id, tag)
    else:
        client.set_tag(run_id, tag, value)
    if tag == "run_key" and value is not None:  # of another grid, then
        assert replay(grid, out, uri_of(out)) == 1
        client.delete_run(run_id)
    else:
        assert replay(grid, out, uri_of(out)) == 1
    check(grid, out, uri_of(out))
    assert replay(grid, out, uri_of(out)) == 0


def test_duplicates_of_a_creation_without_an_answer_are_deleted(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow asks a second time by itself, and never tells that there are two."""
    create = MlflowClient.create_run

    def twice(client: MlflowClient, *given: object, **named: object) -> object:
        create(client, *given, **named)
        return create(client, *given, **named)

    monkeypatch.setattr(MlflowClient, "create_run", twice)
    grid = synced_sweep(out)
    check(grid, out, uri_of(out))
    monkeypatch.undo()
    assert replay(grid, out, uri_of(out)) == 0


@pytest.mark.slow
def test_a_sweep_with_a_locked_database_and_the_default_time_limits(tmp_path: Path, out: Path) -> None:
    file, lock = grid_file(tmp_path), Lock(out / "mlflow.db")
    lock.take()
    begun = time.monotonic()
    done = harness("run", "--grid", file, "--out", out, "--workers", 1)
    took_s = time.monotonic() - begun
    lock.release()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("database is locked") == 1
    assert "4 finished." in done.stdout
    assert "next: harness sync --grid " in done.stdout
    assert took_s < 120
    for replayed in (4, 0):
        done = harness("sync", "--grid", file, "--out", out)
        assert f"tiny: {replayed} runs replayed" in done.stdout, done.stderr
    check(load_grid(file, REGISTRY), out, uri_of(out))


def test_sync_lists_skipped_runs_that_are_no_longer_in_the_grid(tmp_path: Path, out: Path) -> None:
    play(small_grid(tmp_path, 3), out, lambda: Tracker("http://127.0.0.1:9", out=out))
    small_grid(tmp_path, 2)
    for said in ("2 runs replayed into", "0 runs replayed into"):
        done = harness("sync", "--grid", tmp_path / "away.yaml", "--out", out)
        assert said in done.stdout, done.stderr
        assert f"{2 - int(said[0])} were there already." in done.stdout
        assert "skipped 1 runs that are no longer in the grid" in done.stdout
        assert len(children(out)) == 2


COMMAND = "harness run --grid away.yaml --workers 16"


def reported(out: Path) -> tuple[str, object, list[bool], tuple[str, ...]]:
    """What a report says of how the sweep was run."""
    found = load("away", uri_of(out))
    (sweep,) = found.sweeps
    return sweep.command, sweep.provenance.get("workers"), found.runs["shared_machine"].unique().tolist(), found.notes


@pytest.mark.parametrize("was_away", [False, True])
def test_sync_sends_the_options_that_the_sweep_was_run_with(tmp_path: Path, out: Path, was_away: bool) -> None:
    """Not what it is run with itself; also where the store hears of the sweep for the first time."""
    grid, options = small_grid(tmp_path), Options(out=out, workers=16, command=COMMAND)

    def connect() -> Tracker:
        return Tracker("http://127.0.0.1:9" if was_away else uri_of(out), out=out)

    play(grid, out, connect, options=options)
    done = harness("sync", "--grid", tmp_path / "away.yaml", "--out", out)
    assert done.returncode == 0, done.stderr
    assert reported(out) == (COMMAND, 16, [True], ())
    check(grid, out, uri_of(out))


def test_sync_keeps_stored_values_that_the_folder_no_longer_has(tmp_path: Path, out: Path) -> None:
    """A folder of an older version, or a damaged file in it."""
    grid, options = small_grid(tmp_path), Options(out=out, workers=16, command=COMMAND)
    play(grid, out, lambda: Tracker(uri_of(out), out=out), options=options)
    for content in (b"", b"{}", None):
        (out / grid.name / "origin.json").unlink(missing_ok=True)
        if content is not None:
            (out / grid.name / "origin.json").write_bytes(content)
        assert replay(grid, out, uri_of(out)) == 0
        assert reported(out) == (COMMAND, 16, [True], ())


def test_a_sweep_with_nothing_to_compute_claims_no_computation(tmp_path: Path, out: Path) -> None:
    grid = small_grid(tmp_path)
    for options in (Options(out=out, workers=16, command=COMMAND), Options(out=out, workers=1, command="again")):
        play(grid, out, lambda: Tracker(uri_of(out), out=out), options=options)
        assert reported(out) == (COMMAND, 16, [True], ())
