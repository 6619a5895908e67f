"""The journal: what is written is read back, and damage is never taken for data."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

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
    Skipped,
    Started,
)
from harness.storage.attempt import Attempt, newest_attempts
from harness.storage.journal import Journal, JournalError, checksummed_line

EVENTS: list[Event] = [
    Started({"torch": "2"}),
    EpochDone(1, 10, 0.5, {"train/loss": 1.25}),
    Picture("originals", 10, b"\x89PNG picture"),
    Latents([0.5], [1.75], [0.193], [0], [[0.8, 0.2]]),
    Finished(10, {"test/neg_elbo": 2.5}),
    Diverged(3, "loss is nan at step 3"),
    Failed("ValueError: no", "Traceback …"),
    Skipped("no cuda"),
    Interrupted("by the user"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: e.kind)
def test_every_event_survives_json(event: Event) -> None:
    record = Record.now("abc", event)
    assert Record.from_json(record.to_json()) == record


def test_a_metric_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Record.now("abc", Finished(1, {"x": float("nan")})).to_json()


def write(folder: Path, events: list[Event] = EVENTS) -> list[Record]:
    records = [Record.now(f"run{i}", event) for i, event in enumerate(events)]
    with Journal(folder) as journal:
        for record in records:
            journal.append(record)
    return records


def read(folder: Path) -> Iterator[Record]:
    """Yield every record with its picture."""
    journal = Journal(folder)
    for record in journal.read():
        if isinstance(event := record.event, Picture):
            yield replace(record, event=replace(event, png=journal.picture(event.sha256) or b""))
        else:
            yield record


def test_records_are_read_back_in_order_across_openings(tmp_path: Path) -> None:
    written = write(tmp_path) + write(tmp_path)
    assert list(read(tmp_path)) == written


def test_pictures_are_left_out_and_stored_once(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path)
    assert [r.event.png for r in Journal(tmp_path).read() if isinstance(r.event, Picture)] == [b"", b""]
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_a_missing_journal_is_empty(tmp_path: Path) -> None:
    assert list(Journal(tmp_path / "nothing").read()) == []


def test_a_damaged_picture_is_noticed(tmp_path: Path) -> None:
    write(tmp_path)
    (path,) = (tmp_path / "images").iterdir()
    path.write_bytes(b"other")
    assert Journal(tmp_path).picture(path.stem) is None


def test_a_damaged_picture_is_written_again(tmp_path: Path) -> None:
    write(tmp_path)
    (path,) = (tmp_path / "images").iterdir()
    png = path.read_bytes()
    path.write_bytes(b"")
    write(tmp_path)
    assert path.read_bytes() == png


def test_a_journal_that_may_not_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(JournalError, match=r"^.*journal.jsonl: the journal cannot be read \([^\n]*$"):
        list(Journal(tmp_path).read())
    with pytest.raises(JournalError, match=r"^.*journal.jsonl: the journal cannot be opened \([^\n]*$"):
        Journal(tmp_path).__enter__()


def test_the_newest_attempt_counts() -> None:
    history: list[Event] = [
        Started({}),
        EpochDone(1, 10, 0.5, {}),
        Interrupted("killed"),
        Started({}),
        EpochDone(1, 10, 0.6, {}),
        EpochDone(2, 20, 1.2, {}),
    ]
    attempt = newest_attempts(Record(run_key="a", time_ms=i, event=e) for i, e in enumerate(history))["a"]
    assert attempt.status == "running"
    assert [e.epoch for e in attempt.epochs] == [1, 2]
    assert attempt.records[0].time_ms == 3


def places(whole: bytes) -> list[int]:
    """Return places all over a journal, closer to each other in its first records: those have every kind of event."""
    return sorted({*range(0, 1200, 5), *range(0, len(whole), len(whole) // 100)})


def long_journal(folder: Path) -> tuple[list[Record], bytes]:
    records = write(
        folder, [*EVENTS, *(EpochDone(i, 10 * i, 0.5, {"train/loss": 1.5 * i}) for i in range(40)), *EVENTS]
    )
    return records, (folder / "journal.jsonl").read_bytes()


def test_a_journal_cut_anywhere_keeps_its_whole_records(tmp_path: Path) -> None:
    records, whole = long_journal(tmp_path)
    path = tmp_path / "journal.jsonl"
    for place in places(whole):
        path.write_bytes(whole[:place])
        n_whole = whole[:place].count(b"\n")
        assert list(read(tmp_path)) == records[:n_whole]
        with Journal(tmp_path) as journal:  # the next driver cuts the rest, and can say how much it was
            assert journal.dropped_bytes == place - (whole[:place].rfind(b"\n") + 1)
            journal.append(records[-1])
        assert list(read(tmp_path)) == [*records[:n_whole], records[-1]]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    records, whole = long_journal(tmp_path)
    path = tmp_path / "journal.jsonl"
    for place in places(whole):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        if place == len(whole) - 1:  # the newline at the very end: a torn line, which is dropped and done again
            assert list(read(tmp_path)) == records[:-1]
            continue
        with pytest.raises(JournalError, match="the journal is damaged"):
            list(Journal(tmp_path).read())


def test_a_status_is_read_without_its_epochs(tmp_path: Path) -> None:
    records, _ = long_journal(tmp_path)
    found = list(Journal(tmp_path).read(epochs=False))
    assert found == [record for record in records if not isinstance(record.event, EpochDone | Picture | Latents)]


def test_an_outline_has_the_first_and_the_last_of_epochs_in_a_row(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for key in ("a", "b", "ab"):
            for event in (Started({}), *(EpochDone(n, n, 0.5, {}) for n in range(1, 6)), Interrupted("killed")):
                journal.append(Record(key, 1, event))
        for event in (Started({}), EpochDone(6, 6, 0.5, {}), EpochDone(7, 7, 0.5, {})):
            journal.append(Record("a", 2, event))
    with journal.path.open("ab") as file:
        file.write(checksummed_line(Record("a", 3, EpochDone(8, 8, 0.5, {})).to_json())[:-1])  # being written
    found = list(Journal(tmp_path).outline(["a", "never heard of"]))
    assert {record.run_key for record in found} == {"a"}
    shown = [record.event.epoch if isinstance(record.event, EpochDone) else record.event.kind for record in found]
    assert shown == ["started", 1, 5, "interrupted", "started", 6, 7]
    assert list(Journal(tmp_path).outline([])) == []


def test_the_same_code_continues_the_attempt_of_a_run(tmp_path: Path) -> None:
    ours = {"source_sha256": "ab", "packages": {"torch": "2.5"}}
    theirs = ours | {"packages": {"torch": "2.6"}}
    cut: list[Event] = [Started(ours), EpochDone(1, 10, 0.5, {}), Interrupted("killed")]
    for end, start, same in [
        (Interrupted("killed"), ours, True),
        (Failed("worker died", crashed=True), ours, True),
        (Skipped("no cuda here"), ours, True),
        (Interrupted("killed"), theirs, False),
        (Failed("ValueError: no"), ours, False),
        (Diverged(3, "loss is nan"), ours, False),
    ]:
        history: list[Event] = [*cut[:2], end, Started(start), EpochDone(2, 20, 1.0, {})]
        attempt = newest_attempts(Record("a", i, event) for i, event in enumerate(history))["a"]
        assert ([e.epoch for e in attempt.epochs] == [1, 2]) is same, end
        assert attempt.status == "running"
        assert attempt.is_repeat(EpochDone(1, 10, 0.7, {})) is same
        assert not attempt.is_repeat(EpochDone(3, 30, 0.7, {}))


def test_a_picture_is_a_repeat_at_its_own_step_alone() -> None:
    events: list[Event] = [Started({}), Picture("prior_samples", 5, b"one", final=False), EpochDone(1, 5, 0.5, {})]
    attempt = Attempt([Record("a", i, event) for i, event in enumerate(events)])
    assert attempt.is_repeat(Picture("prior_samples", 5, b"other bits", final=False))
    assert not attempt.is_repeat(Picture("prior_samples", 10, b"one"))
    assert not attempt.is_repeat(Picture("reconstructions", 5, b"one"))
    latents = Latents([0.5], [1.75], [0.193], [0], [[0.8, 0.2]])
    assert not attempt.is_repeat(latents)
    attempt.records.append(Record("a", 9, latents))
    assert attempt.is_repeat(latents)


def test_a_picture_of_an_older_version_belongs_to_the_end() -> None:
    text = '{"run_key": "a", "time_ms": 1, "kind": "image", "name": "originals", "step": 3, "png": "", "sha256": "x"}'
    event = Record.from_json(text).event
    assert isinstance(event, Picture)
    assert event.final


@pytest.mark.parametrize(
    "text", ["[1]", '{"kind": "started"}', '{"run_key": "a", "time_ms": 1, "kind": "other"}', "[" * 10_000, "no json"]
)
def test_a_foreign_line_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.jsonl").write_bytes(checksummed_line(text))
    with pytest.raises(JournalError, match=r"journal\.jsonl:1: expected a record of this version, got: [^\n]*$"):
        list(Journal(tmp_path).read())


def test_a_read_error_in_mid_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    class Failing(io.BytesIO):
        def __next__(self) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda *_: Failing())
    with pytest.raises(JournalError, match=r"journal\.jsonl: the journal cannot be read \(Input/output error\)\.$"):
        list(Journal(tmp_path).read())
