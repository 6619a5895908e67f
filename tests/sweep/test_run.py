"""The driver by itself: which checkpoint a run gets."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.config import RunConfig
from harness.events import Checkpoint, EpochDone, Event, Interrupted, Record, Started
from harness.grid.load import Grid
from harness.storage.journal import Journal
from harness.storage.sweep_state import Sweep
from harness.sweep.driver import Driver


def started(source: str) -> Started:
    return Started({"source_sha256": source, "packages": {"torch": "2", "argmax-harness": "1"}})


def checkpoint(run: RunConfig, epoch: int, source: str) -> Checkpoint:
    line = f'{{"format": 1, "run_key": "{run.key}", "epoch": {epoch}, "made_by": ["{source}", "2"]}}\n'
    return Checkpoint(epoch, line.encode() + b"state")


class Played:
    """A driver that receives made-up records in place of those of workers."""

    def __init__(self, folder: Path, run: RunConfig) -> None:
        self.run, self.journal = run, Journal(folder).__enter__()
        nothing = SimpleNamespace(
            check=lambda: None, wait_for_room=lambda: None, write=lambda *_: None, show=lambda _: None, say=self.say
        )
        others: Any = nothing, nothing, nothing
        self.driver = Driver(Sweep(Grid("driver", (run,), ""), folder, (run,)), self.journal, *others)
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def hears(self, *events: Event | Checkpoint) -> None:
        for event in events:
            self.driver.handle(Record.now(self.run.key, event))

    def gives(self) -> bytes | None:
        return self.driver.job_for(self.run).checkpoint


def epochs(first: int, last: int) -> list[Event]:
    return [EpochDone(epoch, epoch, 0.1, {}) for epoch in range(first, last + 1)]


@pytest.fixture
def played(tmp_path: Path, tiny_run: Callable[..., RunConfig]) -> Played:
    return Played(tmp_path, tiny_run())


def test_a_run_resumes_from_its_checkpoint(played: Played) -> None:
    saved = checkpoint(played.run, 3, "a")
    played.hears(started("a"), *epochs(1, 3), saved, *epochs(4, 5), Interrupted("killed"))
    assert played.gives() == saved.content
    played.hears(started("a"), *epochs(4, 6))
    assert [event.epoch for event in played.driver.sweep.attempts[played.run.key].epochs] == [1, 2, 3, 4, 5, 6]


def test_a_new_attempt_discards_a_checkpoint_of_other_code(played: Played, tmp_path: Path) -> None:
    """Code a, then b, then a again: the epochs of b are not those that the checkpoint of a goes on from."""
    saved = checkpoint(played.run, 3, "a")
    played.hears(started("a"), *epochs(1, 3), saved, Interrupted("killed"))
    played.hears(started("b"))
    assert not list((tmp_path / "checkpoints").iterdir())
    played.hears(*epochs(1, 4), saved, Interrupted("killed"))  # as if it had not been removed
    assert played.gives() is None
    played.hears(started("a"), *epochs(1, 2))
    assert [event.epoch for event in played.driver.sweep.attempts[played.run.key].epochs] == [1, 2]
