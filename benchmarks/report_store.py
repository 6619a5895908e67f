"""The store of `benchmarks/report.py`: 1,060 finished runs of 100 epochs, written by the harness's own `harness sync`.

Nothing is trained a thousand times. Each estimator is trained once, for two tiny epochs, and its events give every run
the names, the provenance and the pictures of a real one; the numbers follow formulas of (estimator, schedule, learning
rate, seed). The events become the journal of a sweep, which `harness sync` replays into MLflow, so that the store
cannot drift from what a sweep writes. Two things are done for speed: of each metric only the last value goes through
MLflow's `log_batch`, the earlier ones go into its table in one statement a run; and SQLite does not wait for the disk.
"""

import math
import shutil
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.store.tracking.dbmodels.models import SqlMetric
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine, insert
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine import Engine

from estimators import REGISTRY
from harness import events, tracking
from harness.cli import cli
from harness.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import EpochDone, Event, Finished, Record
from harness.grid.load import Grid, load_grid
from harness.storage.journal import Journal
from harness.train import train
from reports.contract.sqlite_uri import DATABASE, sqlite_uri

NAME = "thousand"
EPOCHS, STEPS = 100, 36
"""Epochs of a run, updates of an epoch."""
GRID = f"""\
name: {NAME}
question: Can a report of a thousand runs be read?
training: {{epochs: {EPOCHS}, lr: [1e-3, 3e-4]}}
estimators:
  - name: [straight_through, st_gumbel_softmax, gumbel_softmax, reinmax, gumbel_rao,
           gaussian_softmax, softmax, gapped_st, rebar, relax]
  - reinforce
  - {{name: rloo, n_samples: 4}}
  - {{name: vimco, n_samples: 4}}
schedules:
  - {{kind: constant, tau: [1.0, 0.5]}}
  - {{kind: exponential, initial: 1.0, rate: [1e-3, 3e-4], floor: 0.5, every: 72}}
  - {{kind: linear, initial: 1.0, final: 0.3}}
seeds: {{count: 10}}
"""
N_RUNS = (10 * 5 + 3) * 2 * 10
"""Ten estimators at five schedules each and three without a temperature, two learning rates, ten seeds."""
BEGUN_MS = 1_760_000_000_000
MADE = "made.txt"


def identity() -> str:
    """Return what the store depends on, as a hash: this file, the tracker and the events."""
    package = Path(tracking.__file__).parent
    files = (Path(__file__), Path(events.__file__), *sorted(package.glob("*.py")))
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def make(folder: Path) -> float | None:
    """Make the store in `folder`, unless it is there already (None); return the seconds that took."""
    marker = folder / MADE
    if marker.exists() and marker.read_text() == identity():
        return None
    begun = time.perf_counter()
    for old in (NAME, "artifacts"):
        shutil.rmtree(folder / old, ignore_errors=True)
    for old in ("mlflow.db", MADE):
        (folder / old).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder)
    marker.write_text(identity())
    return time.perf_counter() - begun


def _write(folder: Path) -> None:
    path = folder / f"{NAME}.yaml"
    path.write_text(GRID)
    grid = load_grid(path, REGISTRY)
    if len(grid.runs) != N_RUNS:
        raise SystemExit(f"{path}: expected {N_RUNS} runs, got {len(grid.runs)}. Mend GRID or N_RUNS.")
    write_journal(grid, folder)
    with bulk(sqlite_uri(folder / DATABASE)):
        sync(path, folder)


def write_journal(grid: Grid, folder: Path) -> None:
    """Write the journal that a sweep of this grid would have left."""
    trained = {run.estimator.name: run for run in grid.runs}
    templates = {name: list(train(_tiny(run), REGISTRY)) for name, run in trained.items()}
    with Journal(folder / grid.name) as journal:
        for number, run in enumerate(grid.runs):
            for record in _records(run, templates[run.estimator.name], BEGUN_MS + 1000 * number):
                journal.append(record)


def sync(path: Path, folder: Path) -> None:
    """Replay the journal in `folder` of the grid at `path` into the store in `folder`."""
    cli.main(["sync", "--grid", str(path), "--out", str(folder)], standalone_mode=False)


def _tiny(run: RunConfig) -> RunConfig:
    """Return the run at a fraction of its size."""
    sections: dict[str, Any] = {
        "data": DataConfig(train_size=100),
        "model": ModelConfig(hidden=(16,)),
        "training": TrainingConfig(epochs=2, batch_size=50),
        "evaluation": EvaluationConfig(bound_samples=2),
    }
    return run.model_copy(update=sections)


def _records(run: RunConfig, template: Sequence[Event], begun_ms: int) -> Iterator[Record]:
    """Yield the records of a run of EPOCHS epochs, made up from a template."""
    step_s = 0.004 + 0.0005 * (len(run.estimator.name) % 7) + 1e-5 * run.seed
    epoch = next(event for event in template if isinstance(event, EpochDone))
    for event in template:
        if isinstance(event, EpochDone):
            if event is epoch:
                for i in range(1, EPOCHS + 1):
                    step = STEPS * i
                    yield Record(
                        run.key,
                        begun_ms + 5 * i,
                        EpochDone(i, step, step * step_s, _metrics(run, event.metrics, i, step_s)),
                    )
        elif isinstance(event, Finished):
            final = Finished(STEPS * EPOCHS, _metrics(run, event.metrics, EPOCHS, step_s))
            yield Record(run.key, begun_ms + 900, final)
        elif hasattr(event, "step"):
            yield Record(run.key, begun_ms + 800, replace(event, step=STEPS * EPOCHS))
        else:
            yield Record(run.key, begun_ms, event)


def _metrics(run: RunConfig, template: dict[str, float], epoch: int, step_s: float) -> dict[str, float]:
    """Return plausible numbers under the names of the template."""
    name, lr = run.estimator.name, run.training.lr
    quality = 96 + 14 * _share(name) + 3 * _share(run.schedule.label) + (2 if lr < 5e-4 else 0)
    quality += 0.8 * math.sin(2.3 * run.seed + 1) + 0.4 * math.sin(7.1 * run.seed + 50 * _share(run.label))
    quality += 95 * math.exp(-(0.1 + 0.3 * _share(name)) * epoch) + 0.4 * math.sin(3.0 * epoch + run.seed)
    taus = run.schedule.temperatures(STEPS * epoch - 1, steps_per_epoch=STEPS, n_steps=STEPS * EPOCHS)
    shifts = {"train/loss": -2.0, "test/neg_bound": -6.5, "test/relaxed_loss": -9 * _share(name[::-1])}
    shares = {"bce": 0.86, "kl": 0.14}
    special = {
        "time/step_s_median": step_s, "time/step_s_p90": 1.3 * step_s, "time/images_per_s": 128 / step_s,
        "time/total_s": 1.4 * step_s * STEPS * EPOCHS, "memory/peak_mb": 400.0 + 3 * run.seed, **taus,
    }  # fmt: skip
    return {
        key: special.get(key, shares.get(key.partition("/")[2], 1.0) * (quality + shifts.get(key, 0.0)))
        for key in template
    }


def _share(text: str) -> float:
    """Return a number in [0, 1) that depends on a text alone."""
    return sha256(text.encode()).digest()[0] / 256


@contextmanager
def bulk(uri: str) -> Iterator[None]:
    """Hold the metrics that MLflow is given until their run ends; let SQLite not wait for the disk."""
    log_batch, set_terminated = MlflowClient.log_batch, MlflowClient.set_terminated
    held: dict[str, list[Metric]] = defaultdict(list)

    def hold(self: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **others: Any) -> None:
        held[run_id] += metrics
        if others:
            log_batch(self, run_id, **others)

    def flush(self: MlflowClient, run_id: str, *arguments: Any, **others: Any) -> None:
        metrics = held.pop(run_id, [])
        last = {metric.key: metric for metric in metrics}
        rows = [_row(run_id, metric) for metric in metrics if metric is not last[metric.key]]
        if rows:
            with engine.begin() as connection:
                connection.execute(insert(SqlMetric), rows)
        log_batch(self, run_id, metrics=list(last.values()))
        set_terminated(self, run_id, *arguments, **others)

    def relax(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy_event.listen(Engine, "connect", relax)
    _patch(MlflowClient, log_batch=hold, set_terminated=flush)
    engine = create_engine(uri)
    try:
        yield
    finally:
        engine.dispose()
        sqlalchemy_event.remove(Engine, "connect", relax)
        _patch(MlflowClient, log_batch=log_batch, set_terminated=set_terminated)


def _row(run_id: str, metric: Metric) -> dict[str, Any]:
    place = {"run_uuid": run_id, "key": metric.key, "step": metric.step, "timestamp": metric.timestamp}
    return {**place, "value": metric.value, "is_nan": False}


def _patch(owner: type, **methods: Callable[..., Any]) -> None:
    for name, method in methods.items():
        setattr(owner, name, method)
