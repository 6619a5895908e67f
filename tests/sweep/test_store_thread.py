"""The thread that writes the store: waiting records in one call, no record lost unreported, bounded memory."""

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_tracker import FakeTracker, Said, attempt_of, new_store, write
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.console import Console

import harness.sweep.store_thread
from estimators import REGISTRY
from harness.events import Record
from harness.grid.load import load_grid
from harness.options import Options
from harness.status.progress import PlainProgress
from harness.storage.sweep_state import read_sweep
from harness.sweep.replay import open_store
from harness.sweep.run import run_sweep
from harness.sweep.store_thread import MAX_QUEUED, StoreThread
from harness.tracking import Tracker


@contextmanager
def in_thread(action: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_closing_writes_everything_in_order_then_the_end() -> None:
    tracker = FakeTracker()
    attempts = [attempt_of(f"run{i}") for i in range(20)]
    with new_store(tracker) as store:
        for attempt in attempts:
            write(store, attempt)
        store.close("FINISHED", {})
    for attempt in attempts:
        mine = [r for records in tracker.written for r in records if r.run_key == attempt.records[0].run_key]
        assert mine == attempt.records
    assert tracker.closed == ["FINISHED"]
    assert store.lost is None


def test_records_that_wait_for_a_slow_store_are_written_together() -> None:
    tracker = FakeTracker()
    tracker.gate.clear()
    first, second, third = (attempt_of(f"run{i}") for i in range(3))
    with new_store(tracker) as store:
        store.write(first.records[0], first)
        assert tracker.entered.wait(10)
        for a, b, c in zip(first.records[1:], second.records[1:], third.records[1:], strict=True):
            for record, attempt in ((a, first), (b, second), (c, third)):
                store.write(record, attempt)
        tracker.gate.set()
    assert tracker.written == [first.records[:1], first.records[1:], second.records[1:], third.records[1:]]


def test_two_attempts_at_one_run_are_kept_apart() -> None:
    tracker = FakeTracker()
    tracker.gate.clear()
    other, old, new = attempt_of("other"), attempt_of("run"), attempt_of("run")
    with new_store(tracker) as store:
        store.write(other.records[0], other)
        assert tracker.entered.wait(10)
        write(store, old)
        write(store, new)
        tracker.gate.set()
    assert tracker.written == [other.records[:1], old.records, new.records]


def test_the_driver_does_not_wait_until_the_queue_is_full() -> None:
    tracker = FakeTracker()
    tracker.gate.clear()
    attempt = attempt_of("run", epochs=2 * MAX_QUEUED)
    sent: list[Record] = []
    with new_store(tracker) as store:

        def send() -> None:
            for record in attempt.records:
                store.write(record, attempt)
                sent.append(record)

        with in_thread(send):
            assert tracker.entered.wait(10)
            deadline = time.monotonic() + 10
            while len(sent) < MAX_QUEUED and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            assert MAX_QUEUED <= len(sent) <= 2 * MAX_QUEUED  # the queue, and a batch that was taken before
            assert len(sent) < len(attempt.records)
            tracker.gate.set()
    assert [r for records in tracker.written for r in records] == attempt.records


def test_a_lost_store_is_reported_once_and_never_blocks() -> None:
    tracker, said = FakeTracker(MlflowException("database is locked\nand more")), Said()
    with new_store(tracker, said) as store:
        for i in range(MAX_QUEUED):
            write(store, attempt_of(f"run{i}"))
        store.close("FINISHED", {})
    assert store.lost == "database is locked"
    assert said.lines == [
        "tracking: the store stopped answering (database is locked). The sweep continues; its journal has everything."
    ]
    assert tracker.closed == []


def sweep(tracker: FakeTracker, *, close: bool = False, error: BaseException | None = None) -> None:
    """Write one run, then close the store, or raise an error in the driver."""
    attempt = attempt_of("run")
    with new_store(tracker) as store:
        write(store, attempt)
        if error is not None:
            raise error
        if close:
            store.close("FINISHED", {})


@pytest.mark.parametrize("close", [True, False])
def test_a_mistake_in_the_thread_is_raised_at_the_end(close: bool) -> None:
    tracker = FakeTracker(KeyError("a mistake"))
    with pytest.raises(KeyError, match="a mistake"):
        sweep(tracker, close=close)
    assert tracker.closed == []


def test_a_mistake_in_the_thread_stops_the_driver() -> None:
    def endless() -> None:
        with new_store(FakeTracker(KeyError("a mistake"))) as store:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                write(store, attempt_of("run"))
        pytest.fail("the mistake was silent")

    with pytest.raises(KeyError, match="a mistake"):
        endless()


def test_an_error_of_the_driver_is_not_hidden_and_the_queue_is_written() -> None:
    tracker = FakeTracker()
    with pytest.raises(ZeroDivisionError):
        sweep(tracker, error=ZeroDivisionError())
    assert [r.event for records in tracker.written for r in records] == [r.event for r in attempt_of("run").records]


def test_ctrl_c_does_not_wait_for_a_store_that_hangs() -> None:
    tracker = FakeTracker()
    tracker.gate.clear()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sweep(tracker, error=KeyboardInterrupt())
    assert time.monotonic() - begun < 5
    tracker.gate.set()


def full_store(tracker: FakeTracker, said: Said) -> StoreThread:
    """A store whose queue is full, since its tracker hangs."""
    tracker.gate.clear()
    store = new_store(tracker, said).__enter__()
    attempt = attempt_of("run")
    store.write(attempt.records[0], attempt)
    assert tracker.entered.wait(10)
    for _ in range(MAX_QUEUED):
        store.write(attempt.records[1], attempt)
    return store


def test_ctrl_c_works_while_a_full_queue_waits_for_a_hanging_store() -> None:
    tracker = FakeTracker()
    store = full_store(tracker, Said())
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.wait_for_room()
    assert time.monotonic() - begun < 5
    tracker.gate.set()
    store.wait_for_room()


def test_ctrl_c_works_while_a_hanging_store_is_opened_or_closed() -> None:
    tracker = FakeTracker()
    tracker.gate.clear()
    tracker.close_sweep = lambda *_: tracker.gate.wait(10)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), new_store(tracker) as store:  # noqa: PT012
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        store.close("KILLED", {})
    tracker.gate.set()


def test_a_store_that_is_silent_for_too_long_is_lost_and_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.sweep.store_thread, "TIMEOUT_S", 0.3)
    tracker, said = FakeTracker(), Said()
    store = full_store(tracker, said)
    begun = time.monotonic()
    store.wait_for_room()
    store.write(attempt_of("other").records[0], attempt_of("other"))
    store.close("FINISHED", {})
    store.__exit__(None, None, None)
    assert time.monotonic() - begun < 5
    assert store.lost == "no answer for 0.3 s"
    assert [line for line in said.lines if "stopped answering (no answer for 0.3 s)" in line] == said.lines
    assert len(said.lines) == 1
    assert tracker.closed == []
    tracker.gate.set()


def test_the_thread_ends_with_the_context() -> None:
    with new_store(FakeTracker()) as store:
        write(store, attempt_of("run"))
    assert not store._thread.is_alive()


def test_a_store_lost_in_mid_sweep_is_complete_after_a_replay(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lost.yaml"
    path.write_text(
        "name: lost\ndata: {train_size: 50}\nmodel: {n_latents: 2, n_categories: 3, hidden: [8]}\n"
        "training: {epochs: 2, batch_size: 50}\nevaluation: {bound_samples: 0, n_images: 1}\n"
        "estimators: [straight_through]\nseeds: {count: 6}\n"
    )
    grid = load_grid(path, REGISTRY)
    text = io.StringIO()
    options = Options(out=out, workers=1)
    calls: list[str] = []
    whole = MlflowClient.log_artifacts

    def fails_at_third(client: MlflowClient, run_id: str, folder: str) -> None:
        calls.append(run_id)
        if len(calls) == 3:
            raise MlflowException("disk is full")
        whole(client, run_id, folder)

    monkeypatch.setattr(MlflowClient, "log_artifacts", fails_at_third)
    assert run_sweep(grid, options, PlainProgress(Console(file=text, width=200))) == 0
    assert text.getvalue().count("disk is full") == 1
    assert "6 finished." in text.getvalue()
    assert "the store answers again; 6 runs were replayed into it" in text.getvalue()
    assert "harness sync" not in text.getvalue()

    tracker = Tracker(f"sqlite:///{out / 'mlflow.db'}", out=out)
    for replayed in (0, 0):
        assert open_store(tracker, read_sweep(grid, out), options) == replayed
    client = MlflowClient(tracking_uri=tracker.uri)
    runs = client.search_runs([tracker.experiment_id], filter_string="tags.`harness.kind` = 'run'")
    assert sorted(run.data.tags["run_key"] for run in runs) == sorted(run.key for run in grid.runs)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]
