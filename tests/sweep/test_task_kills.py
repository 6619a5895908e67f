"""A sweep of the worked example of a task, killed at random moments, ends with the bits of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import harness
from empty_store import add_empty_store
from executors import InThisProcess
from gate_sweeps import N_RUNS, stored_content, write_example, write_grid
from killed_sweeps import environment, journal_of, results, workers_of

from harness.execution.executor import Job


def options(folder: Path, out: Path) -> list[str]:
    given = ["run", "--grid", folder / "killed.yaml", "--plugin", folder / "plugin" / "hard_gate.py", "--out", out]
    return [*map(str, given), "--checkpoint-every", "1epochs", "--save-models"]


def prepare(folder: Path, *outs: Path, epochs: int) -> None:
    write_example(folder / "plugin")
    write_grid(folder / "killed.yaml", epochs=epochs)
    for out in outs:
        add_empty_store(out)


def start(folder: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """Start the sweep in a process with two workers, from a folder that has none of the plug-in's modules."""
    command = [sys.executable, "-m", "harness.cli", *options(folder, out), "--workers", "2", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment(), cwd="/")


def n_epochs(out: Path) -> int:
    path = out / "killed" / "journal.jsonl"
    return path.read_bytes().count(b'"kind": "epoch"') if path.exists() else 0


def wait_for_epoch(out: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until the journal has an epoch more, or the process ends."""
    before = n_epochs(out)
    while process.poll() is None and n_epochs(out) <= before:
        time.sleep(0.02)


def assert_whole(out: Path, reference: Path, epochs: int) -> None:
    """Every run and every epoch of it once, with the same numbers, weights and content of the store."""
    wanted = results(reference)
    assert len(wanted) == N_RUNS
    assert results(out) == wanted
    seen = Counter((event["run_key"], event["epoch"]) for event in journal_of(out) if event["kind"] == "epoch")
    assert seen == {(key, epoch): 1 for key in wanted for epoch in range(1, epochs + 1)}
    stored = stored_content(out, "killed")
    assert stored.keys() == wanted.keys()
    assert stored == stored_content(reference, "killed")
    assert not list((out / "killed" / "checkpoints").glob("*"))


@pytest.mark.slow  # ten starts of a driver and two workers: 2 minutes, and 6 on a busy machine
def test_driver_and_worker_are_killed(tmp_path: Path, out: Path) -> None:
    kills, epochs, reference = 8, 12, tmp_path / "reference"
    prepare(tmp_path, reference, epochs=epochs)
    done = harness(*options(tmp_path, reference))
    assert done.returncode == 0, done.stdout + done.stderr
    chance = random.Random(17)  # noqa: S311
    codes, orphans = [], list[psutil.Process]()
    for number in range(kills):
        process = start(tmp_path, out)
        if number == 0 or chance.random() < 0.75:  # while it trains; else while it starts
            wait_for_epoch(out, process)
        time.sleep(chance.uniform(0, 1))
        orphans += workers_of(process.pid)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert codes.count(-signal.SIGKILL) > kills / 2  # it had not ended before
    assert orphans
    assert not psutil.wait_procs(orphans, timeout=60)[1]
    before = n_epochs(out)
    assert 0 < before < N_RUNS * epochs

    process = start(tmp_path, out, "--retries", "3")
    wait_for_epoch(out, process)
    chance.choice(workers_of(process.pid)).kill()
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "worker process died (SIGKILL, out of memory?)" in said
    assert "differed when recomputed" not in said
    assert_whole(out, reference, epochs)
    starts = Counter(event["run_key"] for event in journal_of(out) if event["kind"] == "started")
    assert sum(starts.values()) > N_RUNS
    print(f"{codes.count(-9)} kills, {before} epochs before the last start, {sum(starts.values())} starts")


def test_ctrl_c_saves_the_epoch_and_the_same_command_goes_on_from_it(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference"
    prepare(tmp_path, reference, epochs=2)
    done = harness(*options(tmp_path, reference))
    assert done.returncode == 0, done.stdout + done.stderr
    with monkeypatch.context() as patched:
        patched.setattr(InThisProcess, "submit", submit_and_press_ctrl_c)
        done = harness(*options(tmp_path, out))
    assert done.returncode == 130, done.stdout + done.stderr
    assert [event["error"] for event in journal_of(out) if event["kind"] == "interrupted"] == ["stopped after epoch 1"]
    assert len(list((out / "killed" / "checkpoints").glob("*.ckpt"))) == 1
    done = harness(*options(tmp_path, out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(out, reference, 2)  # no epoch was repeated
    assert Counter(event["kind"] for event in journal_of(out))["started"] == N_RUNS + 1


def submit_and_press_ctrl_c(executor: InThisProcess, job: Job, submit: Any = InThisProcess.submit) -> None:
    submit(executor, job)
    os.kill(os.getpid(), signal.SIGINT)
