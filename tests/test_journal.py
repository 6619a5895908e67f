"""The journal: what is written is read back, and damage is never taken for data."""

from pathlib import Path

import pytest

from harness.events import (
    Diverged,
    EpochDone,
    Event,
    Failed,
    Finished,
    Image,
    Interrupted,
    Record,
    Skipped,
    Started,
)
from harness.journal import Journal, JournalError, attempts

EVENTS: list[Event] = [
    Started({"torch": "2"}),
    EpochDone(1, 10, 0.5, {"train/loss": 1.25}),
    Image("originals", 10, b"\x89PNG picture"),
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


def test_records_are_read_back_in_order_across_openings(tmp_path: Path) -> None:
    written = write(tmp_path) + write(tmp_path)
    assert list(Journal(tmp_path).read()) == written


def test_pictures_are_left_out_on_request_and_stored_once(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path)
    assert [r.event.png for r in Journal(tmp_path).read(pictures=False) if isinstance(r.event, Image)] == [b"", b""]
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert list(Journal(tmp_path / "nothing").read()) == []


def test_cut_anywhere_it_keeps_every_whole_record(tmp_path: Path) -> None:
    records = write(tmp_path)
    path = tmp_path / "journal.jsonl"
    content = path.read_bytes()
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        assert list(Journal(tmp_path).read()) == records[:whole]
    path.write_bytes(content[:-5])
    with Journal(tmp_path) as journal:
        journal.append(records[-1])
    assert list(Journal(tmp_path).read()) == records


def test_a_changed_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    records = write(tmp_path)
    path = tmp_path / "journal.jsonl"
    content = path.read_bytes()
    for place in range(0, len(content) - 1, 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            read = list(Journal(tmp_path).read())
        except JournalError as error:
            assert "\n" not in str(error)  # noqa: PT017 either outcome is allowed, the next line says which
        else:
            assert read == records[: len(read)]


def test_a_damaged_picture_is_noticed(tmp_path: Path) -> None:
    write(tmp_path)
    next((tmp_path / "images").iterdir()).write_bytes(b"other")
    with pytest.raises(JournalError, match=r"journal\.jsonl:3: expected the picture"):
        list(Journal(tmp_path).read())


def test_the_newest_attempt_counts() -> None:
    history: list[Event] = [
        Started({}),
        EpochDone(1, 10, 0.5, {}),
        Interrupted("killed"),
        Started({}),
        EpochDone(1, 10, 0.6, {}),
        EpochDone(2, 20, 1.2, {}),
    ]
    attempt = attempts(Record(run_key="a", time_ms=i, event=e) for i, e in enumerate(history))["a"]
    assert attempt.status == "running"
    assert [e.epoch for e in attempt.epochs] == [1, 2]
    assert attempt.records[0].time_ms == 3
