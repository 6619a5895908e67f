"""Options of how a sweep is run. None of them is part of a run's key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Policy:
    """How crashed and excessive runs are treated. Limits hold for each attempt; None means no limit."""

    retries: int = 2
    pause_s: float = 1.0
    time_limit_s: float | None = None
    memory_limit: float | None = None  # bytes


class SavingEvery(NamedTuple):
    """How often a run saves its state: every so many seconds or epochs, or never if both are None.

    `model` says whether it also saves its weights at the end.
    """

    seconds: float | None = None
    epochs: int | None = None
    model: bool = False


class RayOptions(NamedTuple):
    """Which cluster to use and what a run takes of it. Without `workers`, as many runs as its CPUs hold."""

    address: str | None = None
    workers: int | None = None
    gpus_per_run: float = 1.0
    env: Sequence[str] = ()


NEVER = SavingEvery()


@dataclass(frozen=True)
class Options:
    """The checked options of `harness run`."""

    out: Path
    workers: int
    threads: int = 1
    policy: Policy = Policy()
    saving: SavingEvery = NEVER
    tracking_uri: str | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    plugins: Sequence[Path] = ()
    ray: RayOptions | None = None
    command: str = ""
    grid_path: Path | None = None
    conformance: str | None = None  # of the plug-ins: passed, or skipped by --no-check
    keeps_grid: bool = False  # the grid came through a pipe: `grid_path` is where to store it
    plan_fingerprint: str | None = None  # of the code that read the grid (harness.storage.plan)
