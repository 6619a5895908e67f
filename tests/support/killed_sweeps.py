"""Sweeps of real processes that a test may kill, and what must hold of them afterwards."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from command_line import harness

from harness.storage.sweep_state import is_measured

GRID = """
name: killed
data: {{train_size: 500}}
model: {{n_latents: 3, n_categories: 4, hidden: [64]}}
training: {{epochs: {epochs}, batch_size: 20}}
evaluation: {{bound_samples: 2, n_images: 2}}
estimators: [straight_through, gumbel_softmax, rloo]
seeds: {{count: {seeds}}}
"""


def command(folder: Path, out: Path, *more: str) -> list[str]:
    harness = [sys.executable, "-m", "harness.cli", "run", "--grid", str(folder / "killed.yaml"), "--out", str(out)]
    return [*harness, "--workers", "2", "--checkpoint-every", "2epochs", *more]


def run_quietly(folder: Path, out: Path) -> str:
    """Run the sweep to its end, in this process."""
    done = harness(
        "run", "--grid", folder / "killed.yaml", "--out", out, "--checkpoint-every", "2epochs", COLUMNS="200"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    return os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def journal_of(out: Path, name: str = "killed") -> list[dict[str, object]]:
    lines = (out / name / "journal.jsonl").read_text().splitlines()
    return [json.loads(line[9:]) for line in lines]


def results(out: Path, name: str = "killed") -> dict[str, dict[str, float]]:
    """The final metrics of each run that has to be the same, by key. Each run is finished exactly once."""
    ends = [event for event in journal_of(out, name) if event["kind"] == "finished"]
    assert max(Counter(event["run_key"] for event in ends).values()) == 1
    return {e["run_key"]: {k: v for k, v in e["metrics"].items() if not is_measured(k)} for e in ends}


def assert_whole(out: Path, reference: Path, n_epochs: int) -> None:
    """Every run once, every epoch of its journal and every step of its metrics in MLflow once, the same numbers."""
    wanted = results(reference)
    assert results(out) == wanted
    epochs = Counter((event["run_key"], event["epoch"]) for event in journal_of(out) if event["kind"] == "epoch")
    assert epochs == {(key, epoch): 1 for key in wanted for epoch in range(1, n_epochs + 1)}
    assert list(stored(out)) == list(stored(reference))
    assert not list((out / "killed" / "checkpoints").glob("*"))


def stored(out: Path) -> Iterator[tuple[object, ...]]:
    """What MLflow has: run keys and statuses, and of each metric its steps and values, but no times."""
    with sqlite3.connect(f"file:{out / 'mlflow.db'}?mode=ro", uri=True) as database:
        runs = """SELECT key.value, runs.status FROM runs JOIN tags AS key USING (run_uuid)
                  WHERE key.key = 'run_key' AND lifecycle_stage = 'active' ORDER BY 1"""
        yield from database.execute(runs)
        metrics = """SELECT key.value, metrics.key, step, metrics.value FROM metrics JOIN tags AS key USING (run_uuid)
                     JOIN runs USING (run_uuid)
                     WHERE key.key = 'run_key' AND lifecycle_stage = 'active' ORDER BY 1, 2, 3"""
        for key, name, step, value in database.execute(metrics):
            yield (key, name, step) if is_measured(name) else (key, name, step, value)


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the workers of a driver that are alive: the last one killed may not have been waited for yet."""
    found = psutil.process_iter(["cmdline", "ppid", "status"])
    mine = [process for process in found if process.info["ppid"] == pid and process.info["status"] != "zombie"]
    return [process for process in mine if "spawn_main" in str(process.info["cmdline"])]


def start(folder: Path, out: Path, *more: str, n_epochs: int = 20) -> "subprocess.Popen[str]":
    """Start the sweep; return once its journal has so many epochs."""
    process = subprocess.Popen(
        command(folder, out, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    journal = out / "killed" / "journal.jsonl"
    while not journal.exists() or journal.read_text().count('"epoch"') < n_epochs:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process
