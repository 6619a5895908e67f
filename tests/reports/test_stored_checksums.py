"""Damaged stored files are reported and not used: no traceback and no wrong number in the report."""

import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from estimators import REGISTRY
from harness.events import EpochDone, Finished, Picture, Record, Started
from harness.grid.load import load_grid
from harness.storage.attempt import Attempt
from harness.tracking import Tracker
from harness.tracking.files import Files
from reports.report import build_report
from reports.store.load import load

pytestmark = pytest.mark.usefixtures("undrawn")
N_EPOCHS = 12
PNG = b"\x89PNG\r\n\x1a\n and more"
NOT_USED = "the stored file {} is not used: its content does not have the checksum that its run states."


def attempt(key: str, seed: int) -> Attempt:
    events = [Started({"torch": "2", "workers": 1})]
    events += [EpochDone(e, 5 * e, 0.5 * e, {"val/loss": 100.0 - e + seed}) for e in range(1, N_EPOCHS + 1)]
    events += [Picture("originals", 60, PNG), Finished(60, {"test/neg_elbo": 90.0 + seed})]
    return Attempt([Record(key, 1000 + i, event) for i, event in enumerate(events)])


@pytest.fixture
def uri(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store as the driver writes it: three runs of one sweep."""
    path = tmp_path / "small.yaml"
    path.write_text("name: small\nquestion: why?\nestimators: [straight_through, rloo, exact]\nmodel: {n_latents: 2}\n"
                    "seeds: [0]\n")  # fmt: skip
    grid = load_grid(path, REGISTRY)
    monkeypatch.setattr(Files, "log_for_charts", lambda *_, **__: None)  # it would have to be a real picture
    tracker = Tracker(f"sqlite:///{out / 'mlflow.db'}", out=out)
    plan = [{"run_key": run.key, "estimator": run.estimator.name, "seed": run.seed} for run in grid.runs]
    files = {"grid.yaml": grid.text, "plan.json": json.dumps(plan), "provenance.json": json.dumps({"workers": 2})}
    tracker.open_sweep(name="small", sweep_id="s", runs=grid.runs, tags={"harness.command": "c"}, files=files)
    for seed, run in enumerate(grid.runs):
        records = attempt(run.key, seed)
        tracker.write(records.records, records)
    return tracker.uri


def files(out: Path, name: str) -> list[Path]:
    return sorted(out.glob(f"artifacts/*/*/artifacts/{name}"))


def damages(content: bytes, n: int) -> list[tuple[str, bytes]]:
    """`n` truncations and `n` flipped bits, at places all over the content."""
    chosen = random.Random(3)  # noqa: S311 the same places in every run
    lengths = [round(i * (len(content) - 1) / (n - 1)) for i in range(n)]
    flipped = []
    for index, bit in ((chosen.randrange(len(content)), chosen.randrange(8)) for _ in range(n)):
        flipped.append(content[:index] + bytes([content[index] ^ (1 << bit)]) + content[index + 1 :])
    return [(f"cut at {k}", content[:k]) for k in lengths] + [("flipped", damaged) for damaged in flipped]


def test_an_undamaged_store_has_no_notes(uri: str, tmp_path: Path) -> None:
    runs = load("small", uri)
    assert runs.notes == ()
    assert len(runs.history) == 3 * N_EPOCHS
    assert len(runs.images) == 3
    assert runs.sweeps[0].plan
    assert "not used" not in build_report(runs, tmp_path / "report").read_text(encoding="utf-8")


@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_a_damaged_history_is_always_reported_and_never_used(uri: str, out: Path, n: int) -> None:
    """Truncated at n places and with a bit flipped at n places: many of these would be valid JSON."""
    whole = load("small", uri)
    path = files(out, "history.json")[0]
    content = path.read_bytes()
    key = next(run.run_key for run in whole.runs.itertuples() if run.run_id == path.parents[1].name)
    name = whole.runs.set_index("run_key").loc[key, "name"]
    others = whole.history[whole.history["run_key"] != key].reset_index(drop=True)
    n_valid = 0
    for what, damaged in damages(content, n):
        path.write_bytes(damaged)
        n_valid += _is_json(damaged)
        found = load("small", uri)
        assert f"{name}: {NOT_USED.format('history.json')}" in found.notes, what
        assert any("1 of 3 finished runs have no readable history.json" in note for note in found.notes)
        pd.testing.assert_frame_equal(found.history, others)
        pd.testing.assert_frame_equal(found.runs, whole.runs)
    assert n_valid > n / 5  # no parser would have told
    path.write_bytes(content)
    pd.testing.assert_frame_equal(load("small", uri).history, whole.history)


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content.decode("utf-8", errors="replace")), list)
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("plan.json", lambda runs: len(runs.sweeps[0].plan) == 0),
        ("grid.yaml", lambda runs: runs.sweeps[0].grid == ""),
        ("provenance.json", lambda runs: not runs.runs["shared_machine"].any()),
        ("pictures/originals.png", lambda runs: len(runs.images) == 2),
    ],
)
def test_other_damaged_files_are_reported_and_not_used(
    uri: str, out: Path, tmp_path: Path, name: str, lost: Callable
) -> None:
    path = next(path for path in files(out, name) if name != "provenance.json" or b'workers": 2' in path.read_bytes())
    for what, damaged in damages(path.read_bytes(), 3):
        path.write_bytes(damaged)
        runs = load("small", uri)
        assert any(note.endswith(NOT_USED.format(name)) for note in runs.notes), what
        assert lost(runs)
    if name == "plan.json":
        page = build_report(runs, tmp_path / "report").read_text(encoding="utf-8")
        assert NOT_USED.format(name) in page


def test_a_missing_file_is_reported(uri: str, out: Path) -> None:
    files(out, "history.json")[0].unlink()
    assert any("history.json is not used: it is missing, although its checksum" in n for n in load("small", uri).notes)


def test_missing_checksums_and_damaged_tags_are_reported(uri: str, out: Path) -> None:
    def state(text: str) -> tuple[str, ...]:
        with sqlite3.connect(out / "mlflow.db") as database:
            database.execute("UPDATE tags SET value = ? WHERE key = 'harness.sha256'", (text,))
        database.close()
        runs = load("small", uri)
        assert runs.history.empty
        return runs.notes

    assert any("history.json is not used: its run states no checksum of it" in note for note in state("{}"))
    for text in ("", "{", "[]", "7", "[" * 4000):
        assert any("the tag harness.sha256 of its run cannot be read" in note for note in state(text)), text


def test_runs_of_older_versions_are_read_as_before(uri: str, out: Path) -> None:
    whole = load("small", uri)
    with sqlite3.connect(out / "mlflow.db") as database:
        database.execute("DELETE FROM tags WHERE key = 'harness.sha256'")
    database.close()
    runs = load("small", uri)
    assert runs.notes == ()
    pd.testing.assert_frame_equal(runs.history, whole.history)


def test_many_damaged_files_make_few_notes(uri: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.store.artifacts.MAX_NOTES", 4)
    for path in (out / "artifacts").rglob("*"):
        if path.is_file():
            path.unlink()
    notes = load("small", uri).notes
    assert sum("it is missing" in note for note in notes) == 4
    assert "6 more stored files are not used for reasons like these." in notes
