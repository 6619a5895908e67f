"""Values that a store refuses permanently: only they are lost, it is reported once, and it is not an outage."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric_name
from outages import check, forget_places, made_up_records, play, replay, small_grid
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from stores_that_fail import postgres

from estimators import REGISTRY
from harness import bounded_names
from harness.events import EpochDone, Record
from harness.grid.load import GridError, load_grid
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import read_sweep
from harness.tracking import Tracker, default_uri, hint
from harness.tracking.records import truncated
from harness.tracking.refusals import MAX_NAMED, Refusals, is_permanent

INVALID = "INVALID_PARAMETER_VALUE"


def caused(cause: Exception) -> MlflowException:
    error = MlflowException(str(cause))
    error.__cause__ = cause
    return error


def rest(code: str, message: str) -> RestException:
    return RestException({"error_code": code, "message": message})


@pytest.mark.parametrize(
    "error",
    [
        MlflowException.invalid_parameter_value("Invalid value 'a//b' for parameter 'metrics[0].name'"),
        rest(INVALID, "Invalid value"),
        rest("BAD_REQUEST", "(psycopg2.errors.StringDataRightTruncation) value too long for type character varying"),
        rest("BAD_REQUEST", "(sqlite3.IntegrityError) UNIQUE constraint failed"),
        MlflowException("API request to endpoint /log-batch failed with error code 413 != 200"),
        caused(DataError("INSERT", {}, Exception("value too long"))),
        caused(DataError("INSERT INTO runs (deleted_time, workspace)", {}, Exception("value too long"))),
        rest(
            "BAD_REQUEST", "(psycopg2.errors.StringDataRightTruncation) too long\n[SQL: INSERT INTO x (deleted_time)]"
        ),
        caused(IntegrityError("INSERT", {}, Exception("unique"))),
        caused(OperationalError("INSERT", {}, Exception("(1366, \"Incorrect string value: '\\xF0'\")"))),
        caused(UnicodeEncodeError("utf-8", "\\ud800", 0, 1, "surrogates not allowed")),
    ],
)
def test_a_permanent_refusal_is_recognised(error: Exception) -> None:
    assert is_permanent(error)
    assert hint(error).startswith("Trying again does not help")


@pytest.mark.parametrize(
    "error",
    [
        OSError("no space left"),
        MlflowException("API request failed with error code 503 != 200"),
        rest("TEMPORARILY_UNAVAILABLE", "database is locked"),
        rest("BAD_REQUEST", "(psycopg2.InterfaceError) connection already closed"),
        caused(OperationalError("SELECT", {}, Exception("locked"))),
        caused(InterfaceError("SELECT", {}, Exception("connection already closed"))),
        MlflowException.invalid_parameter_value("The run x must be in the 'active' state. Current state is deleted."),
        rest("RESOURCE_DOES_NOT_EXIST", "Run with id=x not found"),
        rest("PERMISSION_DENIED", "no"),
        rest("MALFORMED_REQUEST", "the request was cut"),
        rest("INVALID_PARAMETER_VALUE", "Active workspace is required."),
        caused(IntegrityError("INSERT", {}, Exception("FOREIGN KEY constraint failed"))),
    ],
)
def test_an_outage_is_recognised(error: Exception) -> None:
    assert not is_permanent(error)
    assert hint(error) == "The same command continues."


def test_a_call_is_halved_until_the_refused_value_is_alone() -> None:
    refusals, stored = Refusals(), list[str]()

    def write(entities: Any) -> None:
        if any("bad" in entity.key for entity in entities):
            raise rest(INVALID, f"Invalid value {[entity.key for entity in entities]}")
        stored.extend(entity.key for entity in entities)

    refusals.log(write, [RunTag(f"bad {i}" if i in (3, 70) else f"good {i}", "x") for i in range(100)])
    assert stored == [f"good {i}" for i in range(100) if i not in (3, 70)]
    assert refusals.count == 2
    lines = refusals.new_lines()
    assert lines == [
        f"tracking: the store refused the tag bad {i}: {INVALID}: Invalid value ['bad {i}']" for i in (3, 70)
    ]
    refusals.log(write, [RunTag("bad 3", "x")])
    assert refusals.new_lines() == []
    assert refusals.count == 3


def test_an_outage_within_a_call_is_raised() -> None:
    def write(entities: Any) -> None:
        raise MlflowException("failed with error code 503 != 200") if len(entities) == 1 else rest(INVALID, "no")

    with pytest.raises(MlflowException, match="503"):
        Refusals().log(write, [RunTag("a", "1"), RunTag("b", "2")])


def test_only_the_first_refusals_are_named() -> None:
    refusals = Refusals()
    for i in range(50):
        with refusals.tolerated(f"metric {i}\x1b[2J"):
            raise rest(INVALID, "no")
    lines = refusals.new_lines()
    assert len(lines) == MAX_NAMED + 1
    assert "\x1b" not in "".join(lines)
    assert refusals.count == 50


# --- a sweep --------------------------------------------------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, method: str, refused: Callable[..., bool]) -> None:
    """Let MLflow's client refuse some calls, as a store with narrower rules would."""
    real = getattr(MlflowClient, method)

    def called(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
        if refused(*arguments, **named):
            raise rest(INVALID, f"{method}: no such thing")
        return real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, method, called)


@pytest.mark.parametrize("method", ["log_inputs", "log_image", "create_logged_model"])
def test_a_refused_call_costs_no_other(method: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, method, lambda *_, **__: True)
    grid = small_grid(out.parent)
    said = play(grid, out, lambda: Tracker(default_uri(out), out=out), size=3)
    assert said.outages() == 0
    assert sum(": no such thing" in line for line in said.lines) in (1, 2)
    assert re.fullmatch(
        r"tracking: the store refused \d+ values or files for good\. Trying again does not help.*", said.lines[-1]
    )
    client = MlflowClient(tracking_uri=default_uri(out))
    runs = client.search_runs([client.get_experiment_by_name("away").experiment_id])
    assert len(runs) == 4
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}


def test_a_metric_that_is_refused_costs_that_metric_alone(out: Path) -> None:
    grid = small_grid(out.parent, 1)
    tracker = Tracker(default_uri(out), out=out)
    records = made_up_records(grid.runs)
    for index, record in enumerate(records):
        if isinstance(record.event, EpochDone):
            event = EpochDone(record.event.epoch, record.event.step, 0.5, {"a//b": 1.0, "train/loss": 2.0})
            records[index] = Record(record.run_key, record.time_ms, event)
    tracker.open_sweep(name="away", sweep_id="s", runs=grid.runs, tags={}, files={})
    tracker.write(records, Attempt(records))
    [line] = tracker.refusals.new_lines()
    assert line.startswith('tracking: the store refused the metric a//b: Invalid value "a//b"')
    client = MlflowClient(tracking_uri=default_uri(out))
    [child] = client.search_runs([tracker.experiment_id], "tags.`harness.kind` = 'run'")
    assert (child.info.status, child.data.metrics["train/loss"]) == ("FINISHED", 2.0)


def test_a_run_that_is_refused_costs_that_run_alone(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "create_run", lambda *_, run_name="", **__: "seed 1" in run_name)
    grid = small_grid(out.parent)
    said = play(grid, out, lambda: Tracker(default_uri(out), out=out))
    assert said.outages() == 0
    assert sum("refused the run straight_through · constant(1) · seed 1" in line for line in said.lines) == 1
    client = MlflowClient(tracking_uri=default_uri(out))
    runs = client.search_runs([client.get_experiment_by_name("away").experiment_id], "tags.`harness.kind` = 'run'")
    assert sorted(run.data.params["seed"] for run in runs) == ["0", "2"]
    monkeypatch.undo()
    assert replay(grid, out, default_uri(out)) == 1
    check(grid, out, default_uri(out))


def test_long_texts_are_cut_with_a_visible_mark(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    grid = small_grid(out.parent, 1)
    tracker = Tracker(default_uri(out), out=out)
    tracker.open_sweep(name="away", sweep_id="s", runs=grid.runs, tags={"harness.question": "q" * 9000}, files={})
    parent = MlflowClient(tracking_uri=default_uri(out)).get_run(tracker.parent_id)
    assert len(parent.data.tags["harness.question"]) == 8000
    assert parent.data.tags["harness.question"].endswith("q… (9000 characters)")
    assert tracker.refusals.count == 0
    assert truncated("a\0b\ud800", 100) == "a\\x00b\\ud800"


# --- names that a store takes ---------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=300), unique=True, max_size=8))
def test_metric_names_are_accepted_and_unique_whatever_the_labels(labels: list[str]) -> None:
    found = bounded_names.metric_names(labels)
    for name in found:
        _validate_metric_name(f"gradient/{name}/encoder/relative_bias_high")
        assert len(f"gradient/{name}/encoder/relative_bias_high") <= 250
    folded = [name.casefold() for name in (*found, bounded_names.OWN)]
    assert len(set(folded)) == len(folded) == len(labels) + 1


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["rloo(n_samples=2)", "rloo"], r"rloo-n_samples-2 rloo"),
        (["基準", "対照"], r"label-[0-9a-f]{8} label-[0-9a-f]{8}"),
        (["..", "own", "a b", "a-b", "A b"], r"label-\w{8} own-\w{8} a-b a-b-\w{8} A-b-\w{8}"),
        (["x" * 201], r"x{100}-\w{8}"),
    ],
)
def test_ordinary_labels_keep_their_metric_names(labels: list[str], expected: str) -> None:
    assert re.fullmatch(expected, " ".join(bounded_names.metric_names(labels)))


@given(st.text(max_size=500), st.text(max_size=500), st.integers(0, 2**32 - 1))
def test_run_names_fit_and_stay_unique(one: str, other: str, seed: int) -> None:
    first, second = bounded_names.run_name(one, seed), bounded_names.run_name(other, seed)
    assert len(first) <= 250
    assert first.endswith(f" · seed {seed}")
    assert (first == second) == (one == other)
    assert bounded_names.run_name("rloo · constant(1)", seed) == f"rloo · constant(1) · seed {seed}"


def test_a_grid_with_such_labels_is_stored_whole(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(
        f"name: hostile\nestimators: [{{name: straight_through, label: {'e' * 200}}}]\nseeds: [0, 1]\n"
        f"schedules: [{{kind: constant, tau: 1.0, label: {'s' * 200}}}]\n"
    )
    grid = load_grid(path, REGISTRY)
    said = play(grid, out, lambda: Tracker(default_uri(out), out=out))
    assert said.lines == []
    with closing(sqlite3.connect(out / "mlflow.db")) as database:
        lengths = [
            length for (length,) in database.execute("SELECT length(name) FROM runs WHERE lifecycle_stage = 'active'")
        ]
    assert max(lengths) == 250
    assert len(lengths) == 3
    assert {run.name for run in grid.runs} == {run.name for run in read_sweep(grid, out).grid.runs}


@pytest.mark.parametrize("name", ["Default", "default", "artifacts", "Compare", "gradients", "mlflow.db", "MLruns"])
def test_reserved_names_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(f"name: {name}\nestimators: [rloo]\nseeds: [0]\n")
    with pytest.raises(GridError, match=rf"g.yaml:1:7: name: expected none of .*, got '{name}'\. Give the grid"):
        load_grid(path, REGISTRY)
    path = tmp_path / f"{name}.yaml"
    path.write_text("estimators: [rloo]\nseeds: [0]\n")
    with pytest.raises(GridError, match=rf"name: expected none of .*, got '{name}'\. Add name: to {path}, or rename"):
        load_grid(path, REGISTRY)


# --- a database with narrower columns -------------------------------------------------------------------------------


@pytest.mark.slow
def test_postgresql_accepts_long_names_and_refuses_single_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "long.yaml", tmp_path / "results"
    path.write_text(
        f"name: long\nestimators: [{{name: straight_through, label: {'é' * 200}}}]\nseeds: [0, 1]\n"
        f"schedules: [{{kind: constant, tau: 1.0, label: {'σ' * 200}}}]\n"
    )
    forget_places(monkeypatch)
    grid = load_grid(path, REGISTRY)
    with postgres() as (_, uri):
        said = play(grid, out, lambda: Tracker(uri, out=out))
        assert said.lines == []
        check(grid, out, uri)
        out.rename(tmp_path / "moved")  # the database is elsewhere: its paths follow --out
        assert replay(grid, tmp_path / "moved", uri) == 0
        check(grid, tmp_path / "moved", uri)
        monkeypatch.setattr("harness.bounded_names.MAX_RUN_NAME", 10_000)
        monkeypatch.setattr("harness.tracking.child_runs.truncated", lambda text, limit: text)
        again = play(grid, tmp_path / "again", lambda: Tracker(uri, out=tmp_path / "again"))
        assert again.outages() == 0, again.lines
        assert any("refused the run" in line and "too long" in line for line in again.lines)
