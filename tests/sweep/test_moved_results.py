"""A results folder that was moved, copied or mounted elsewhere: the same report, and the sweep goes on there."""

import dataclasses
import filecmp
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from empty_store import add_empty_store
from outages import check, forget_places, play, replay, small_grid
from reports_store import Planned, StoreWriter

from harness.cli import cli, main
from harness.grid.load import Grid
from harness.status import next_commands
from harness.storage import last_command
from harness.storage.last_command import LastCommand
from harness.storage.lease import Lease
from harness.storage.sweep_state import read_sweep
from harness.tracking import Tracker, TrackingError, attach, default_uri, follow_moved_files
from reports import load
from reports.contract.artifact_paths import current_path

N_RUNS = 4


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return small_grid(tmp_path, N_RUNS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a sweep with every fate of a run."""
    out = tmp_path_factory.mktemp("made") / "results"
    out.mkdir()
    add_empty_store(out)
    play(small_grid(out.parent, N_RUNS), out, lambda: Tracker(default_uri(out), out=out), size=3)
    return out


@pytest.fixture
def one(made: Path, tmp_path: Path) -> Path:
    """The same as if they had been made here."""
    here = shutil.copytree(made, tmp_path / "results")
    columns = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    with closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        for table, column in columns.items():
            statement = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"  # noqa: S608 names from above
            database.execute(statement, (made.as_uri(), here.as_uri()))
    return here


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_places(monkeypatch)


def move(one: Path) -> Path:
    """Move the folder, and put a file where it was, so that writing there fails."""
    two = one.parent / "elsewhere (2)" / "100%"
    two.parent.mkdir()
    one.rename(two)
    one.touch()
    return two


def places(out: Path) -> list[str]:
    """Every place in the database that names a folder of artifacts."""
    query = (
        "SELECT artifact_location FROM experiments WHERE name != 'Default' UNION SELECT artifact_uri FROM runs"
        " UNION SELECT artifact_location FROM logged_models"
    )
    with closing(sqlite3.connect(out / "mlflow.db")) as database:
        return [place for (place,) in database.execute(query)]


def assert_same_runs(one: object, other: object) -> None:
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, pd.DataFrame):
            pd.testing.assert_frame_equal(left, right)
        else:
            assert left == right, field.name


@pytest.fixture(params=["moved", "copied"])
def two(request: pytest.FixtureRequest, one: Path) -> Iterator[tuple[object, Path]]:
    """What was read before, and the folder as it is then; a copy leaves the first one whole."""
    before = load("away", default_uri(one))
    if request.param == "moved":
        yield before, move(one)
        assert one.read_bytes() == b""
        return
    there = one.parent / "copy"
    shutil.copytree(one, there)
    kept = {path: path.read_bytes() for path in one.rglob("*") if path.is_file()}
    yield before, there
    assert {path: path.read_bytes() for path in one.rglob("*") if path.is_file()} == kept


def test_reading_finds_the_files_and_writes_nothing(two: tuple[object, Path]) -> None:
    before, there = two
    database = (there / "mlflow.db").read_bytes()
    assert_same_runs(before, load("away", default_uri(there)))
    assert (there / "mlflow.db").read_bytes() == database


def test_nothing_is_left_to_replay_in_the_new_place(two: tuple[object, Path], grid: Grid) -> None:
    before, there = two
    assert replay(grid, there, default_uri(there)) == 0
    check(grid, there, default_uri(there))
    assert_same_runs(before, load("away", default_uri(there)))


@pytest.mark.parametrize("cut", [11, pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)])
def test_a_stopped_sweep_continues_in_the_new_place(cut: int, out: Path, grid: Grid) -> None:
    def stop(number: int) -> None:
        if number == cut:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(grid, out, lambda: Tracker(default_uri(out), out=out), before=stop)
    there = move(out)
    said = play(grid, there, lambda: Tracker(default_uri(there), out=there))
    check(grid, there, default_uri(there))
    assert said.outages() == 0
    assert len(places(there)) > N_RUNS
    assert all(place.startswith(there.as_uri()) for place in places(there))


def test_files_that_were_lost_on_the_way_are_written_again_by_sync(one: Path, grid: Grid) -> None:
    there = move(one)
    shutil.rmtree(there / "artifacts")
    uri = default_uri(there)
    notes = load("away", uri).notes
    assert notes[0].startswith("The plan of the sweep (plan.json) cannot be read. Missing runs are not known")
    assert f"The files of {N_RUNS + 1} stored runs are not there: expected for example the folder" in notes[1]
    assert replay(grid, there, uri) == N_RUNS
    check(grid, there, uri)
    assert replay(grid, there, uri) == 0
    assert load("away", uri).notes == ()


def test_a_run_whose_files_stayed_behind_is_not_looked_for_in_the_new_place(one: Path) -> None:
    """Somebody ran on after a move with a version that wrote into the old place."""
    there = one.parent / "copy"
    shutil.copytree(one, there)
    stayed, *others = sorted(path for path in (there / "artifacts" / "away").iterdir() if path.name != "models")
    shutil.rmtree(stayed)
    assert follow_moved_files(default_uri(there), there) > len(others)
    assert sum(place.startswith(one.as_uri()) for place in places(there)) == 1
    assert follow_moved_files(default_uri(there), there) == 0


def test_files_outside_the_folder_of_the_database_stay_in_place(tmp_path: Path, out: Path, grid: Grid) -> None:
    """`--tracking-uri` names a database in another folder than --out."""
    uri, there = default_uri(out), tmp_path / "results of mine"
    play(grid, there, lambda: Tracker(uri, out=there), size=3)
    before, known = load("away", uri), places(out)
    Tracker(uri, out=tmp_path / "results of another")
    Tracker(uri, out=out)
    assert places(out) == known
    there.rename(tmp_path / "moved")
    assert_same_runs(before, load("away", uri, results=tmp_path / "moved"))
    assert follow_moved_files(uri, tmp_path / "moved") > N_RUNS
    assert_same_runs(before, load("away", uri))


def test_a_report_is_attached_in_the_new_place(one: Path) -> None:
    there = move(one)
    run = attach(default_uri(there), "away", page_in(there))
    assert (there / "artifacts" / "away" / run.run_id / "artifacts" / "report" / "report.html").is_file()


def test_an_unreadable_plan_is_reported_first(one: Path) -> None:
    [plan] = one.glob("artifacts/away/*/artifacts/plan.json")
    plan.write_text("[")
    notes = load("away", default_uri(one)).notes
    assert notes[0].startswith("The plan of the sweep (plan.json) cannot be read.")
    assert "plan.json is not used: its content does not have the checksum" in notes[1]


def test_a_stored_place_of_another_shape_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "x" / "1" / "artifacts").mkdir(parents=True)
    for path in (Path("/mlruns/1/2/artifacts"), Path("/a/artifacts/../x/1/artifacts"), Path("/"), Path("artifacts")):
        assert current_path(path, [tmp_path]) == path
    there = Path("/gone/artifacts/x/1/artifacts")
    assert current_path(there, [tmp_path]) == tmp_path / "artifacts/x/1/artifacts"
    assert current_path(there, []) == there


def test_the_next_commands_name_the_new_place(
    one: Path, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "away.yaml"
    command = f"harness run --grid {path} --out {one}"
    monkeypatch.setattr(last_command, "read", lambda folder: LastCommand(command, {}))
    assert next_commands.previous_command(read_sweep(grid, one), path, one) == command
    there = move(one)
    sweep = read_sweep(grid, there)
    assert next_commands.previous_command(sweep, path, there) is None
    steps = next_commands.after_status(sweep, path, there, (), driven=False)
    assert steps
    assert all(str(there) in step.command and str(one) not in step.command.replace(str(there), "") for step in steps)


@pytest.mark.slow
def test_the_report_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    runs = [Planned(name, "constant", seed) for name in ("straight_through", "gumbel_softmax") for seed in range(3)]
    StoreWriter(folder).sweep("0", runs, epochs=3)
    reports = []
    for name in ("first", "second"):
        reports.append(tmp_path / f"report of {name}")
        where = ["--from", str(tmp_path / name), "--out", str(reports[-1])]
        done = CliRunner().invoke(cli, ["report", "--experiment", "0", *where])
        assert done.exit_code == 0, done.output
        if name == "first":
            folder.rename(tmp_path / "second")
    names = [path.relative_to(reports[0]) for path in sorted(reports[0].rglob("*")) if path.is_file()]
    assert len(names) > 20
    assert filecmp.cmpfiles(*reports, [str(name) for name in names], shallow=False)[1:] == ([], [])


# --- whose places are changed ----------------------------------------------------------------------------------------


def test_a_sweep_with_a_driver_keeps_its_stored_places(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver may see the folder under another name, as in a container, and asks MLflow for places as it goes."""
    there = move(one)
    known = places(there)
    with Lease(there / "away"):
        assert follow_moved_files(default_uri(there), there) == 0
        with pytest.raises(TrackingError, match=r"got no such folder\. If the sweep is running and sees"):
            attach(default_uri(there), "away", page_in(there))
        monkeypatch.setattr("os.execv", lambda *_: None)
        assert main_code("ui", "--out", there, "--port", 5997) == 0
        assert places(there) == known
        assert follow_moved_files(default_uri(there), there, own="away") > N_RUNS
    assert all(place.startswith(there.as_uri()) for place in places(there))


def test_a_driver_changes_the_places_of_its_own_sweep_alone(one: Path) -> None:
    there = move(one)
    known = places(there)
    assert follow_moved_files(default_uri(there), there, own="another") == 0
    Tracker(default_uri(there), out=there)
    assert places(there) == known


def test_a_second_way_to_the_same_folder_changes_nothing(one: Path) -> None:
    known = places(one)
    link = one.parent / "link"
    link.symlink_to(one)
    assert follow_moved_files(default_uri(link), link) == 0
    assert places(one) == known


def test_ui_makes_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_code("ui", "--tracking-uri", f"sqlite:///{tmp_path}/typo.db") == 2
    assert "expected an MLflow database, got no file at" in capsys.readouterr().err
    assert not (tmp_path / "typo.db").exists()


def page_in(folder: Path) -> Path:
    page = folder / "report.html"
    page.write_text("<html>")
    return page


def main_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)
