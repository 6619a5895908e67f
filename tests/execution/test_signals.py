"""Ctrl-C at every line of the driver: journal, sweep and store agree afterwards."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from executors import DONE, SOON, Scripted

import harness
from harness.config import RunConfig
from harness.events import EpochDone, Record, Started
from harness.execution.signals import Signals
from harness.grid.load import Grid
from harness.storage.attempt import Attempt
from harness.storage.journal import Journal
from harness.storage.sweep_state import Sweep
from harness.sweep.driver import Driver

DONE_KINDS = ["started", "epoch", "finished"]
PACKAGE = str(Path(harness.__file__).parent)


def test_the_first_signal_asks_to_stop_and_the_second_interrupts() -> None:
    asked: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with Signals(first=lambda: asked.append("stop")):
        signal.raise_signal(signal.SIGTERM)
        assert asked == ["stop"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked == ["stop"]
    assert signal.getsignal(signal.SIGINT) is before


def test_closing_the_terminal_asks_to_stop_unless_nohup_is_used() -> None:
    asked: list[str] = []
    with Signals(first=lambda: asked.append("stop")):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)  # from the shell, too
    assert asked == ["stop"]
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals(first=lambda: asked.append("stop")):
            signal.raise_signal(signal.SIGHUP)
        assert asked == ["stop"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_the_second_signal_waits_for_an_atomic_block_unless_that_fails() -> None:
    done: list[str] = []
    with Signals(first=lambda: None) as signals:
        with signals.held():
            signal.raise_signal(signal.SIGINT)  # the first interrupts nothing
        with pytest.raises(KeyboardInterrupt), signals.held():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")
    assert done == ["all of it"]
    with Signals(first=lambda: None) as signals:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(OSError, match="the disk is full"), signals.held():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            raise OSError("the disk is full")


class Interrupting:
    """A progress that sends the first signal when a run starts, and then the second at the k-th line of the harness."""

    def __init__(self, k: int) -> None:
        self.k, self.n_lines = k, 0

    def show(self, record: Record) -> None:
        if isinstance(record.event, Started):
            signal.raise_signal(signal.SIGINT)
            sys.settrace(self._trace)

    def say(self, line: str) -> None: ...

    def _trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.n_lines += 1
            if self.n_lines == self.k:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self._trace


def interrupted_at(k: int, folder: Path, run: RunConfig) -> tuple[int, Sweep, list[Record]]:
    """Carry one run, with the second signal at line k. Return the number of lines, the sweep, the store's records."""
    executor = Scripted({run.key: [[Started({}), EpochDone(1, 2, 0.1, {}), DONE]]})
    sweep = Sweep(Grid("signals", (run,), ""), folder, (run,))
    stored: list[Record] = []

    def write(record: Record, attempt: Attempt) -> None:
        stored.append(record)

    progress = Interrupting(k)
    with Journal(folder) as journal:
        others: Any = (
            SimpleNamespace(write=write, wait_for_room=lambda: None),
            progress,
            SimpleNamespace(check=lambda: None),
        )
        try:
            assert Driver(sweep, journal, *others).execute([run], executor, SOON, fail_fast=False)
        finally:
            sys.settrace(None)
    return progress.n_lines, sweep, stored


def test_a_second_signal_at_any_line_loses_and_repeats_nothing(
    tmp_path: Path, tiny_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.storage.sweep_state.describe_code", str)
    run = tiny_run()
    ends = []
    for k in range(1, 10_000):
        n_lines, sweep, stored = interrupted_at(k, tmp_path / str(k), run)
        kinds = [record.event.kind for record in Journal(sweep.folder).read()]
        assert kinds in (
            ["started", "interrupted"],
            ["started", "epoch", "interrupted"],
            ["started", "epoch", "finished"],
        )
        assert [record.event.kind for record in stored] == kinds, f"line {k}"
        assert sweep.status(run) == kinds[-1], f"line {k}"
        ends.append(kinds[-1])
        if n_lines < k:
            break
    assert 100 < len(ends) < 9_000
    assert ends.count("interrupted") > 50
    assert ends.count("finished") > 10
