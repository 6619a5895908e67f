"""A sweep in a store, and what a run of it says."""

from harness.events import EpochDone, Finished, Picture, Record, Started
from harness.grid.load import Grid
from harness.storage.attempt import Attempt
from harness.tracking import Tracker

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


def open_sweep(tracker: Tracker, grid: Grid) -> None:
    tracker.open_sweep(
        name=grid.name, sweep_id="s1", runs=grid.runs, tags={"harness.command": "c"}, files={"grid.yaml": grid.text}
    )


def finished_attempt(run_key: str, at: int = 1000) -> Attempt:
    events = [
        Started({"torch": "2"}),
        EpochDone(1, 5, 0.5, {"train/loss": 3.0}),
        EpochDone(2, 10, 1.0, {"train/loss": 2.0}),
        Picture("originals", 10, PNG),
        Finished(10, {"test/neg_elbo": 1.5}),
    ]
    return Attempt([Record(run_key, at + i, event) for i, event in enumerate(events)])
