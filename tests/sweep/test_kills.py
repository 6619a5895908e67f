"""Sweeps that are killed again and again, at random moments, and end as if nothing had happened."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

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


def run_quietly(folder: Path, out: Path, *more: str) -> str:
    done = subprocess.run(
        command(folder, out, *more), capture_output=True, text=True, timeout=900, check=False, env=environment()
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


def undisturbed(folder: Path, *, seeds: int, epochs: int) -> Path:
    """Write the grid; return where it was run without a kill."""
    (folder / "killed.yaml").write_text(GRID.format(epochs=epochs, seeds=seeds))
    run_quietly(folder, folder / "reference")
    return folder / "reference"


@pytest.mark.parametrize(
    ("kills", "seeds", "epochs"),
    [pytest.param(3, 1, 40, id="3"), pytest.param(50, 4, 400, id="50", marks=pytest.mark.slow)],
)
def test_the_driver_is_killed_again_and_again(tmp_path: Path, out: Path, kills: int, seeds: int, epochs: int) -> None:
    reference = undisturbed(tmp_path, seeds=seeds, epochs=epochs)
    chance = random.Random(0)  # noqa: S311
    codes, orphans = [], list[psutil.Process]()
    for _ in range(kills):
        process = subprocess.Popen(command(tmp_path, out), stdout=subprocess.DEVNULL, env=environment())
        if chance.random() < 0.8:  # while it trains; else while it starts
            wait_for_epoch(out / "killed" / "journal.jsonl", process)
        time.sleep(chance.uniform(0, 2))
        orphans += workers_of(process.pid)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert codes.count(-signal.SIGKILL) > kills / 2  # it had not ended before
    assert orphans
    assert not psutil.wait_procs(orphans, timeout=20)[1]  # the workers of a driver that was killed end with it
    run_quietly(tmp_path, out)
    assert_whole(out, reference, epochs)
    resumed = Counter(e["run_key"] for e in journal_of(out) if e["kind"] == "started")
    print(f"{codes.count(-9)} kills, {sum(resumed.values())} starts of {len(resumed)} runs")


def wait_for_epoch(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the journal has an epoch more, or the process ends."""
    before = n_epochs(path)
    while process.poll() is None and n_epochs(path) <= before:
        time.sleep(0.02)


def n_epochs(path: Path) -> int:
    return path.read_bytes().count(b'"kind": "epoch"') if path.exists() else 0


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the workers of a driver that are alive: the last one killed may not have been waited for yet."""
    found = psutil.process_iter(["cmdline", "ppid", "status"])
    mine = [process for process in found if process.info["ppid"] == pid and process.info["status"] != "zombie"]
    return [process for process in mine if "spawn_main" in str(process.info["cmdline"])]


@pytest.mark.slow
def test_workers_are_killed_again_and_again(tmp_path: Path, out: Path) -> None:
    kills, epochs = 20, 150
    reference = undisturbed(tmp_path, seeds=4, epochs=epochs)
    chance = random.Random(0)  # noqa: S311
    log = tmp_path / "log"
    with log.open("w") as stdout:
        process = subprocess.Popen(
            command(tmp_path, out, "--retries", str(kills)), stdout=stdout, stderr=stdout, env=environment()
        )
        killed = 0
        while killed < kills and process.poll() is None:
            wait_for_epoch(out / "killed" / "journal.jsonl", process)
            time.sleep(chance.uniform(0, 1))
            if workers := workers_of(process.pid):
                chance.choice(workers).kill()
                killed += 1
        assert process.wait(timeout=600) == 0, log.read_text()
    assert killed == kills
    assert_whole(out, reference, epochs)
    retries = re.findall(r"worker process died \(SIGKILL, out of memory\?\); retry \d+ of \d+", log.read_text())
    cut = [event for event in journal_of(out) if event["kind"] == "interrupted"]
    assert len(retries) == len(cut)
    assert 0 < len(cut) <= kills  # an idle worker that dies costs no run its try
    starts = Counter(e["run_key"] for e in journal_of(out) if e["kind"] == "started")
    assert len(starts) < sum(starts.values()) <= len(starts) + len(cut)  # one may die before its run has started
