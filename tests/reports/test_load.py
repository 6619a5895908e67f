"""Reading stored runs: a real SQLite store, written by MlflowClient as docs/architecture.md says."""

import shutil
import socket
import sqlite3
import threading
from pathlib import Path

import pandas as pd
import pytest
from reports_store import PROVENANCE, START_MS, Planned, StoreWriter, main_grid, neg_elbo
from stores_that_fail import free_port

from reports.report import build_report
from reports.store.frame import CORE, IDENTITY, newest, planned_but_missing, tidy, typed
from reports.store.load import ReportError, load


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """URI of a store with the experiments demo, rerun and unreadable."""
    writer = StoreWriter(tmp_path_factory.mktemp("store"))
    writer.sweep("demo", main_grid())
    first = Planned("rloo", "none", 0)
    writer.sweep("rerun", [first, Planned("rloo", "none", 1, status="failed", error="x")], images=False)
    writer.sweep("rerun", [first, Planned("rloo", "none", 1, shift=5)], images=False, start_ms=START_MS + 10**6)
    writer.sweep("unreadable", [first, Planned("rloo", "none", 1)])
    for path in Path(writer.uri.removeprefix("sqlite:///")).parent.glob("artifacts/*/*/artifacts/history.json"):
        if _experiment(writer.uri, path) == "unreadable":
            path.write_text("[{")
    return writer.uri


def _experiment(uri, path):
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        query = "SELECT e.name FROM runs r JOIN experiments e USING (experiment_id) WHERE r.run_uuid = ?"
        return database.execute(query, (path.parents[1].name,)).fetchone()[0]


@pytest.fixture(scope="module")
def demo(store):
    return load("demo", store)


def test_every_planned_run_has_one_row(demo):
    planned = main_grid()
    assert len(demo.runs) == len(planned)
    assert sorted(demo.runs["run_key"]) == sorted(run.key for run in planned)
    found = demo.runs["status"].value_counts().to_dict()
    assert found == {"finished": 21, "failed": 1, "diverged": 1, "skipped": 1, "missing": 1}


def test_rows_are_tidy_and_typed(demo):
    assert list(demo.runs.columns[: len(CORE)]) == list(CORE)
    row = demo.runs.set_index("run_key").loc[Planned("rloo", "none", 2, estimator_params={"n_samples": 4}).key]
    assert row["estimator"] == "rloo"
    assert row["estimator_label"] == row["setting"] == "rloo(n_samples=4)"
    assert pd.isna(row["schedule_label"])
    assert pd.isna(row["schedule"])
    assert row["axes"] == ""
    assert row["seed"] == 2
    assert row["training.lr"] == 0.001
    assert row["model.n_latents"] == 20
    assert demo.runs["evaluation.bound_samples"].dtype == "Int64"  # a missing run makes no 100.0
    assert row["shared_machine"]
    assert row["end"] - row["start"] == pd.Timedelta(milliseconds=900)
    assert row["test/neg_elbo"] == neg_elbo(Planned("rloo", "none", 2))
    assert row["test/soft_hard_gap"] == 0


def test_schedules_and_errors_are_read(demo):
    row = demo.runs.set_index("run_key").loc[Planned("gumbel_softmax", "exponential", 1).key]
    assert row["schedule"] == "exponential"
    assert row["schedule_label"] == "exponential(1→0.5, rate=3e-05, every=100)"
    assert "RuntimeError: out of memory <b>on</b> & off" in set(demo.runs["error"])


def test_history_has_a_row_per_run_and_epoch(demo):
    assert list(demo.history.columns[: len(IDENTITY) + 3]) == [*IDENTITY, "epoch", "step", "elapsed_s"]
    lengths = demo.history.groupby("run_key").size()
    assert (lengths[demo.runs.loc[demo.runs["status"] == "finished", "run_key"]] == 10).all()
    assert demo.history.loc[demo.history["estimator"] == "rloo", "tau"].isna().all()
    diverged = demo.history[demo.history["status"] == "diverged"]
    assert diverged["epoch"].max() == 3


def test_images_are_those_of_the_first_finished_seed(demo):
    pictured = demo.runs[demo.runs["run_key"].isin(demo.images)]
    assert set(pictured["seed"]) == {0}
    assert len(pictured) == 7
    assert all(set(images) == {"originals", "reconstructions", "prior_samples"} for images in demo.images.values())


def test_the_command_and_versions_of_the_sweep_are_read(demo):
    (sweep,) = demo.sweeps
    assert sweep.command == "harness run --grid experiments/demo.yaml"
    assert sweep.question.startswith("Which estimator")
    assert sweep.provenance == PROVENANCE
    assert "name: demo" in sweep.grid


def test_the_newest_finished_attempt_counts(store):
    runs = load("rerun", store).runs
    assert len(runs) == 2
    assert set(runs["status"]) == {"finished"}
    assert runs.loc[runs["seed"] == 0, "start"].item() > pd.Timestamp(START_MS + 10**5, unit="ms", tz="UTC")


def test_an_unfinished_newer_attempt_does_not_hide_a_finished_one():
    old = {"run_key": "k", "run_id": "a", "status": "finished", "start": pd.Timestamp(1, unit="s")}
    new = {"run_key": "k", "run_id": "b", "status": "failed", "start": pd.Timestamp(2, unit="s")}
    assert newest([new, old]) == [old]
    assert newest([{**old, "status": "failed"}, new]) == [new]


def test_damaged_histories_are_a_note_and_not_an_error(store):
    runs = load("unreadable", store)
    assert runs.history.empty
    assert "2 of 2 finished runs have no readable history.json" in runs.notes[0]


def test_the_same_store_gives_the_same_bytes(store, tmp_path):
    one = build_report(load("rerun", store), tmp_path / "1").read_bytes()
    assert one == build_report(load("rerun", store), tmp_path / "2").read_bytes()


def test_an_unknown_experiment_lists_what_there_is(store):
    with pytest.raises(ReportError, match=r"got 'dmeo'\. There is: demo, rerun, unreadable"):
        load("dmeo", store)


def test_no_runs_is_one_line(store):
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=store).create_experiment("empty")
    with pytest.raises(ReportError, match="experiment 'empty': expected at least one run, got none"):
        load("empty", store)


def test_a_server_that_does_not_answer_is_one_line_within_seconds():
    with pytest.raises(ReportError, match="expected a tracking server that answers") as caught:
        load("demo", f"http://name:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_speak_http_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"220 mail ready\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ReportError, match="expected a tracking server that answers"):
            load("demo", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_a_missing_database_is_not_created(tmp_path):
    with pytest.raises(ReportError, match="expected a database, got no file"):
        load("demo", f"sqlite:///{tmp_path / 'new.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be read as one" * 30])
def test_a_file_that_is_not_a_store_is_one_line(tmp_path, content):
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(ReportError, match="expected an MLflow database"):
        load("demo", f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_scheme_that_mlflow_does_not_know_is_one_line():
    with pytest.raises(ReportError, match="expected an MLflow store, got 'nonsense://x'"):
        load("demo", "nonsense://x")


def test_a_store_whose_artifacts_are_gone_still_loads(store, tmp_path):
    folder = Path(store.removeprefix("sqlite:///")).parent
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = '/nowhere' || artifact_uri")
    runs = load("demo", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(runs.runs) == 24  # without the plan, a missing run cannot be known
    assert runs.images == {}
    assert runs.notes


def test_params_get_their_types_back():
    texts = ["3", "0.5", "1e-3", "True", "false", "None", "[512, 256]", "cosine", "none", "", "[x"]
    assert [typed(text) for text in texts] == [3, 0.5, 0.001, True, False, None, [512, 256], "cosine", "none", "", "[x"]


def test_an_axis_that_the_label_does_not_name_makes_a_setting_of_its_own():
    common = {"run_id": "r", "label": "rloo", "estimator": "rloo", "schedule": "none", "device": "cpu", "seed": 0}
    runs = tidy(
        [{**common, "run_key": str(lr), "status": "finished", "training.lr": lr, "data.name": "m"} for lr in (0.1, 0.2)]
    )
    assert list(runs["setting"]) == ["rloo · training.lr=0.1", "rloo · training.lr=0.2"]


@pytest.mark.parametrize(
    ("label", "schedule", "expected"),
    [
        ("a · constant(1) · lr=0.1 · device=cpu", "constant(1)", ("a", "constant(1)", "lr=0.1")),
        ("a · lr=0.1", "none", ("a", None, "lr=0.1")),
        ("my own · name · slow", "constant(1)", ("my own · name", "slow", "")),
        ("", "constant", ("est", "constant", "")),
    ],
)
def test_labels_of_older_stores_are_split(label, schedule, expected):
    own = {"estimator_label": "my own · name"} if label.startswith("my") else {}
    runs = tidy(
        [{"run_key": "k", "label": label, "estimator": "est", "schedule": schedule, "status": "finished", **own}]
    )
    row = runs.loc[0, ["estimator_label", "schedule_label", "axes"]]
    assert tuple(None if pd.isna(value) else value for value in row) == expected


def test_missing_runs_are_counted_once():
    entry = {"run_key": "k", "estimator": "rloo", "seed": 1}
    assert len(planned_but_missing([entry, entry], set())) == 1
    assert planned_but_missing([entry], {"k"}) == []


def test_a_learned_temperature_that_ends_elsewhere_is_no_setting():
    same = {"estimator": "gumbel_softmax", "label": "gumbel_softmax · learned", "schedule": "learned", "device": "cpu",
            "status": "finished"}  # fmt: skip
    frame = tidy([{**same, "run_key": str(seed), "seed": seed, "tau": 1 + seed, "compiled": seed} for seed in (0, 1)])
    assert frame["setting"].tolist() == ["gumbel_softmax · learned"] * 2
    assert frame["tau"].tolist() == [1, 2]
