"""A damaged journal is repaired: damaged lines are left out, and runs with a gap are repeated."""

import random
from pathlib import Path

import pytest
from command_line import assert_refused, grid_file, harness
from killed_sweeps import results

from harness.events import EpochDone, Event, Failed, Finished, Interrupted, Latents, Picture, Record, Started
from harness.storage.attempt import newest_attempts
from harness.storage.journal import Journal, JournalError, checksummed_line
from harness.storage.repair import is_complete, repair


def code(source: str) -> Started:
    return Started({"source_sha256": source, "packages": {"torch": "2", "argmax-harness": "1"}})


def epochs(first: int, last: int) -> list[Event]:
    return [EpochDone(epoch, epoch * 5, 0.1, {"train/loss": 1 / epoch}) for epoch in range(first, last + 1)]


PICTURE = Picture("originals", 20, b"\x89PNG picture")
LATENTS = Latents([0.5], [1.75], [0.193], [0], [[0.8, 0.2]])
RUNS: dict[str, list[Event]] = {
    "whole": [code("a"), *epochs(1, 4), PICTURE, LATENTS, Finished(20, {"test/neg_elbo": 1.5})],
    "went on": [code("a"), *epochs(1, 2), Interrupted("killed"), code("a"), *epochs(3, 4), Finished(20, {})],
    "other code": [code("a"), Interrupted("killed"), code("b"), *epochs(1, 4), Finished(20, {})],
    "tried again": [code("a"), *epochs(1, 2), Failed("ValueError"), code("a"), *epochs(1, 4), Finished(20, {})],
    "under way": [code("a"), *epochs(1, 3)],
    "never began": [Interrupted("the node died", retrying=True), Interrupted("the node died")],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal of all these runs, their records mixed as workers mix them."""
    left = {key: list(events) for key, events in RUNS.items()}
    chance = random.Random(0)  # noqa: S311
    with Journal(tmp_path) as journal:
        while left:
            key = chance.choice(sorted(left))
            journal.append(Record(key, chance.randrange(10**6), left[key].pop(0)))
            if not left[key]:
                del left[key]
    return tmp_path


def newest(folder: Path) -> dict[str, list[Event]]:
    return {
        key: [record.event for record in attempt.records]
        for key, attempt in newest_attempts(Journal(folder).read()).items()
    }


def flip(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines[line]) // 2
    lines[line] = lines[line][:middle] + bytes([lines[line][middle] ^ 1]) + lines[line][middle + 1 :]
    path.write_bytes(b"".join(lines))


def test_a_whole_journal_is_left_alone(folder: Path) -> None:
    assert all(is_complete(attempt) for attempt in newest_attempts(Journal(folder).read()).values())
    before = (folder / "journal.jsonl").read_bytes()
    assert repair(folder) == (0, 0, None)
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_run_that_lacks_a_damaged_line_is_not_used(folder: Path) -> None:
    path = folder / "journal.jsonl"
    content, before = path.read_bytes(), newest(folder)
    n_left_out = 0
    for line in range(content.count(b"\n")):
        path.write_bytes(content)
        damaged = [record.run_key for record in Journal(folder).read()][line]
        flip(path, line)
        with pytest.raises(JournalError, match="harness repair"):
            newest(folder)
        done = repair(folder)
        assert (done.n_lines, done.n_runs in (0, 1)) == (1, True)
        after = newest(folder)
        for key in RUNS.keys() - {damaged}:
            assert after[key] == before[key]
        finished = isinstance(after.get(damaged, [None])[-1], Finished)
        same = [event for event in before[damaged] if not isinstance(event, Interrupted | Picture | Latents | Started)]
        assert not finished or [e for e in after[damaged] if isinstance(e, EpochDone | Finished)] == same
        code_version = newest_attempts(Journal(folder).read())[damaged].code_version if finished else None
        assert not finished or code_version == ("b" if damaged == "other code" else "a", "2")
        n_left_out += done.n_runs
        assert done.kept_as is not None
        assert len(done.kept_as.read_bytes()) == len(content)
    assert n_left_out > 10


def test_a_record_of_another_version_is_no_damage(folder: Path) -> None:
    path = folder / "journal.jsonl"
    path.write_bytes(path.read_bytes() + checksummed_line('{"kind": "of the future"}'))
    before = path.read_bytes()
    with pytest.raises(JournalError, match="expected a record of this version"):
        repair(folder)
    assert path.read_bytes() == before


def test_a_sweep_with_a_damaged_journal_continues(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path)
    assert harness("run", "--grid", grid, "--out", out).returncode == 0
    before = results(out, "tiny")
    path = out / "tiny" / "journal.jsonl"
    flip(path, 7)
    assert_refused(harness("run", "--grid", grid, "--out", out), "the journal is damaged. `harness repair` leaves out")
    done = harness("repair", "--grid", grid, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "tiny: removed 1 damaged lines" in done.stdout
    assert "nothing is damaged" in harness("repair", "--grid", grid, "--out", out).stdout
    again = harness("run", "--grid", grid, "--out", out)
    assert again.returncode == 0, again.stderr
    assert "4 finished." in again.stdout
    assert results(out, "tiny") == before
