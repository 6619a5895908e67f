"""Runs that are cut short, and what of a run has to be the same in the end."""

from collections.abc import Iterator, Mapping
from typing import Any

from estimators import REGISTRY
from harness.config import RunConfig
from harness.events import Checkpoint, EpochDone, Event, Finished, Interrupted, Latents, Picture
from harness.storage.sweep_state import is_measured
from harness.train import train
from harness.training.run_controls import RunControls


def without_times(events: Iterator[Event] | list[Event]) -> list[object]:
    """What has to be the same: epochs and final metrics but the measured ones, pictures and latents."""
    found: list[object] = []
    for event in events:
        if isinstance(event, EpochDone | Finished):
            metrics = {k: v for k, v in event.metrics.items() if not is_measured(k)}
            found.append((event.kind, event.step, metrics))
        elif isinstance(event, Picture):
            found.append((event.name, event.step, event.png))
        elif isinstance(event, Latents):
            found.append(event)
    return found


def cut_after(
    run: RunConfig, epoch: int, checkpoint: bytes | None = None, registry: Mapping[str, Any] = REGISTRY
) -> tuple[list[Event], bytes]:
    """Train until after an epoch, as a first Ctrl-C does it; return the events and the checkpoint."""
    events: list[Event] = []
    controls = RunControls(
        is_stopping=lambda: bool(events) and isinstance(events[-1], EpochDone) and events[-1].epoch == epoch
    )
    for event in train(run, registry, checkpoint, controls):
        events.append(event)
    assert isinstance(events[-1], Interrupted)
    saved = events.pop(-2)
    assert isinstance(saved, Checkpoint)
    return events, saved.content
